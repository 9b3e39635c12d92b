"""The loss's kernels compiled for a GPU that need not be there: `python -m benchmarks.kernels --json OUT`.

For each kernel, number format and width of the vectors, what a block of it takes of a multiprocessor's shared
memory (228 kB on an H100 or H200, 164 on an A100), and whether it multiplies by the units made for it.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import product
from pathlib import Path

POINTERS = {"own": "*i32", "group": "*i32", "codes": "*u8", "columns_of": "*i32", "rows_of": "*i32"}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--architecture", type=int, default=90, help="80 for an A100, 90 for an H100 or H200")
    args = parser.parse_args(argv)
    from spml_dist.method import fused_kernels as kernels

    rows = []
    names = (kernels.sums, kernels.to_pixels, kernels.to_prototypes)
    for precision, dim, kernel in product(("tf32", "tf32x3", "bfloat16"), (64, 66), names):
        binary = compiled(kernel, precision, dim, args.architecture)
        row = {
            "kernel": kernel.__name__,
            "products": precision,
            "dimensions": dim,
            "shared_kb": binary.metadata.shared / 1024,
            "matrix_units": "mma" in binary.asm["ptx"],
        }
        rows.append(row)
        print("  ".join(f"{value:>14}" for value in row.values()), flush=True)
    if args.json:
        args.json.write_text(json.dumps({"architecture": args.architecture, "rows": rows}, indent=2) + "\n")
    return 0


def compiled(kernel, precision: str, dim: int, architecture: int):
    """A kernel for two relations whose concentrations are 6 and 12."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from spml_dist.method import fused_kernels, fused_loss

    constants = fused_loss.constants([6.0, 12.0], None, precision, dim)
    options = {"num_stages": constants.pop("num_stages")}
    types = {}
    for name in kernel.arg_names:
        other = "i32" if name in fused_kernels.SIZES else "fp32" if name.startswith("kappa") else "*fp32"
        types[name] = "constexpr" if name in constants else POINTERS.get(name, other)
    values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, types, constexprs=values)
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


if __name__ == "__main__":
    sys.exit(main())
