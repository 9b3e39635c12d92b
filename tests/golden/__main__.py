"""Compare the package with golden vectors: `python -m tests.golden DIR`.

Runs every ITEM_*.npz and ITEM*.json of DIR and prints, per file: item, passed or failed, worst error,
tolerance. Exit status 1 if anything failed or an item is unknown.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

import tests.golden_items as rooms

Candidates = list[tuple[str, float, float]]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix in (".npz", ".json"))


def checks() -> dict[str, Callable[[np.lib.npyio.NpzFile | dict], Candidates]]:
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
    """(verdict, line) of a file; the verdict is passed, failed or unknown."""
    item = item_of(path.stem, set(known))
    if item is None:
        return "unknown", f"{path.name}: unknown item"
    try:
        rows = known[item](_content(path))
    except Exception:
        return "failed", f"{path.name}: {item} failed with an error\n{traceback.format_exc()}"
    bad = [row for row in rows if not row[1] <= row[2]]
    name, error, tolerance = max(bad or rows, key=lambda row: (row[1] / row[2]) if row[2] else row[1])
    verdict = "failed" if bad or not rows else "passed"
    return (
        verdict,
        f"{path.name}: {item} {verdict}, worst error {error:.3g} ({name}), tolerance {tolerance:.3g}",
    )


def _content(path: Path) -> np.lib.npyio.NpzFile | dict:
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    return np.load(path, allow_pickle=False)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of ITEM_*.npz and ITEM*.json files")
    folder = parser.parse_args(argv).folder
    if not files(folder):
        print(f"{folder}: no .npz or .json files", file=sys.stderr)
        return 1
    known, verdicts = checks(), []
    for path in files(folder):
        verdict, line = run(path, known)
        verdicts.append(verdict)
        print(line, flush=True)
    passed = verdicts.count("passed")
    failed = len(verdicts) - passed
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
