"""Compare the package with golden vectors: `python -m tests.golden DIR`.

Runs every ITEM_*.npz of DIR and prints, per file: item, passed, failed or pending, worst error, tolerance.
Exit status 1 if anything failed or an item is unknown.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

import tests.golden_items as rooms

PENDING = frozenset(
    {"g_densepose", "h_cam_random_walk", "h_random_walk", "k_nn_prob_norm", "m_color_features"}
)
"""Items of parts that do not exist yet: said to be pending, never passed."""

Rows = list[tuple[str, float, float]]


def checks() -> dict[str, Callable[[np.lib.npyio.NpzFile], Rows]]:
    """Every public function of tests/golden_items, by the item it is named after."""
    found = {}
    for module in pkgutil.iter_modules(rooms.__path__):
        room = importlib.import_module(f"{rooms.__name__}.{module.name}")
        found |= {
            name: f
            for name, f in vars(room).items()
            if callable(f) and getattr(f, "__module__", "") == room.__name__ and not name.startswith("_")
        }
    return found


def item_of(stem: str, names: set[str]) -> str | None:
    """The item a file belongs to: the longest item name that its own name begins with."""
    fitting = [name for name in names if stem == name or stem.startswith(name + "_")]
    return max(fitting, key=len, default=None)


def run(path: Path, known: dict[str, Callable]) -> tuple[str, str]:
    """(verdict, line) of a file; the verdict is passed, failed, pending or unknown."""
    item = item_of(path.stem, set(known) | PENDING)
    if item is None:
        return "unknown", f"{path.name}: unknown item"
    if item not in known:
        return "pending", f"{path.name}: {item} pending"
    try:
        with np.load(path, allow_pickle=False) as z:
            rows = known[item](z)
    except Exception:
        return "failed", f"{path.name}: {item} failed with an error\n{traceback.format_exc()}"
    bad = [row for row in rows if not row[1] <= row[2]]
    name, error, tolerance = max(bad or rows, key=lambda row: (row[1] / row[2]) if row[2] else row[1])
    verdict = "failed" if bad or not rows else "passed"
    return (
        verdict,
        f"{path.name}: {item} {verdict}, worst error {error:.3g} ({name}), tolerance {tolerance:.3g}",
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of ITEM_*.npz files")
    folder = parser.parse_args(argv).folder
    files = sorted(folder.glob("*.npz"))
    if not files:
        print(f"{folder}: no .npz files", file=sys.stderr)
        return 1
    known, verdicts = checks(), []
    for path in files:
        verdict, line = run(path, known)
        verdicts.append(verdict)
        print(line, flush=True)
    passed, pending = verdicts.count("passed"), verdicts.count("pending")
    failed = len(verdicts) - passed - pending
    print(f"{passed} passed, {failed} failed" + (f", {pending} pending" if pending else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
