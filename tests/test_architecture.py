"""The rooms of the package and who may import whom, read from the source."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import filterfalse
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "spml_dist"
STREAM = ROOT / "data" / "stream"

ROOMS = (
    "errors",
    "records",
    "tensor_records",
    "hashing",
    "comm",
    "files",
    "progress",
    "tables",
    "run_folder",
    "config",
    "drawing",
    "cluster",
    "data",
    "model",
    "method",
    "bank",
    "tracking",
    "report",
    "inference",
    "labeling",
    "training",
    "retrieval",
    "cli",
)
"""low to high: a room imports from rooms before it, and from itself"""

METHOD = {"errors", "records", "tensor_records", "hashing", "comm", "config", "method"}

STRANGERS = {
    "method": set(ROOMS) - METHOD,
    "bank": {"model"},
    "inference": {"training"},
    "labeling": {"training"},
    "retrieval": {"training"},
    "report": set(ROOMS) - {"errors", "drawing", "report", "run_folder", "files"},
    "cluster": set(ROOMS) - {"errors", "cluster"},
}
"""rooms that do not import others although their order would allow it"""

ONE_FILE_EACH = ("faiss", "webdataset", "timm", "deepspeed", "ray", "mlflow")
INSIDE_FUNCTIONS = ("deepspeed", "ray", "mlflow")
WITHOUT_TORCH = ("errors", "records", "files", "progress", "tables", "config", "drawing", "cluster", "data")
FORBIDDEN_NAMES = {"utils", "util", "helpers", "common", "core", "base", "misc"}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(full dotted name, whether it happens as soon as the file is imported) of every import of a file."""

    def walk(node: ast.AST, at_once: bool):
        for child in ast.iter_child_nodes(node):
            if is_type_checking(child):
                for part in child.orelse:
                    yield from walk(part, at_once)
            elif isinstance(child, ast.Import):
                yield from ((alias.name, at_once) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                yield from ((f"{child.module}.{alias.name}", at_once) for alias in child.names)
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, at_once and not inside)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), True)


@cache
def source() -> dict[Path, tuple[tuple[str, bool], ...]]:
    return {path: tuple(imports(path)) for path in sorted(ROOT.rglob("*.py"))}


def inner() -> list[tuple[Path, str]]:
    """(file, room that it imports from)"""
    found = []
    for path, names in source().items():
        for name, _ in names:
            parts = name.split(".")
            if parts[0] == "spml_dist" and parts[1] != "__version__":
                found.append((path, parts[1]))
    return found


def importers(package: str) -> list[Path]:
    return [path for path, names in source().items() if any(n.split(".")[0] == package for n, _ in names)]


def test_every_room_has_its_place():
    found = {room_of(path) for path in source()} - {"__init__", "__main__"}
    assert found <= set(ROOMS)


def test_a_room_imports_from_lower_rooms_only():
    broken = [
        f"{path.relative_to(ROOT)} imports {other}"
        for path, other in inner()
        if (room := room_of(path)) in ROOMS and ROOMS.index(other) > ROOMS.index(room)
    ]
    assert not broken


@pytest.mark.parametrize("room", STRANGERS)
def test_rooms_that_do_not_know_each_other(room):
    broken = [
        f"{path.relative_to(ROOT)} imports {other}"
        for path, other in inner()
        if room_of(path) == room and other in STRANGERS[room]
    ]
    assert not broken


def test_one_file_hands_the_worker_to_the_cluster():
    """The cluster is handed functions and knows none, and a training's worker does not know what launched it.

    A file of the library joins the two, and no verb: from Python, `spml_dist.train` is the same training.
    Packing and inference spread functions over processes, and launch nothing; a job is a command line,
    and a look at the nodes no training.
    """
    importers = {path.relative_to(ROOT) for path, other in inner() if other == "cluster"}
    spreading = ("cluster", "data", "inference", "retrieval")
    assert {str(path) for path in importers if path.parts[0] not in spreading} == {
        "training/launch.py",
        "training/node_doctor.py",
        "cli/submit.py",
    }


def test_no_public_name_is_hidden_by_a_room():
    """Python sets a package's attribute to its subpackage as soon as that is imported."""
    import spml_dist

    assert not set(spml_dist.__all__) & {room_of(path) for path in source()}


@pytest.mark.parametrize("package", ONE_FILE_EACH)
def test_one_file_each_imports(package):
    # Ray: trainings and tasks, answers by Ray Serve, jobs.
    assert len(importers(package)) == (3 if package == "ray" else 1)


@pytest.mark.parametrize("package", INSIDE_FUNCTIONS)
def test_heavy_packages_are_imported_inside_functions(package):
    early = [
        path
        for path, names in source().items()
        if any(n.split(".")[0] == package and now for n, now in names)
    ]
    assert not early


def test_collectives_live_in_one_file():
    """Beside it and the bank, only the engine's DeepSpeed file speaks to torch.distributed."""
    speakers = [path for path, names in source().items() if any("torch.distributed" in n for n, _ in names)]
    outside = {str(path.relative_to(ROOT)) for path in speakers if room_of(path) != "bank"}
    assert outside <= {"comm.py", "training/deepspeed_engine.py"}


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_rooms_without_torch(room):
    users = [path for path in importers("torch") if room_of(path) == room and path.parent != STREAM]
    assert not users


@pytest.mark.parametrize("folder", [ROOT, ROOT.parent / "benchmarks"], ids=lambda folder: folder.name)
def test_what_is_imported_is_there(folder):
    """Late imports too, which a file that merely loads does not try."""
    wanted = {name for path in folder.rglob("*.py") for name, _ in imports(path)}
    ours = {name for name in wanted if name.split(".")[0] in ("spml_dist", "benchmarks")}
    assert len(ours) > 20 and not sorted(filterfalse(is_there, ours))


def is_there(name: str) -> bool:
    module, _, member = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), member) or bool(importlib.import_module(name))
    except ImportError:
        return False


def test_the_plan_of_the_stream_knows_no_torch():
    assert STREAM / "plan.py" not in importers("torch")


def test_no_file_has_a_name_that_says_nothing():
    named = {path.relative_to(ROOT): {path.stem, *path.relative_to(ROOT).parts[:-1]} for path in source()}
    assert not [path for path, names in named.items() if names & FORBIDDEN_NAMES]


def loaded_by(statement: str) -> set[str]:
    """Top-level packages in memory after a statement, in a fresh interpreter."""
    code = f"import sys; {statement}; print('LOADED', *sorted(m.split('.')[0] for m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_help_imports_neither_torch_nor_anything_else_heavy():
    loaded = loaded_by("from spml_dist import cli; cli.main(['--help'])")
    assert not loaded & {"torch", *ONE_FILE_EACH}


def test_rooms_without_torch_do_not_load_it_by_a_detour():
    modules = [
        ".".join(["spml_dist", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
        for path in source()
        if (room_of(path) in WITHOUT_TORCH and path.parent != STREAM) or path == STREAM / "plan.py"
    ]
    loaded = loaded_by(f"import {', '.join(modules)}")
    assert not loaded & {"torch", *INSIDE_FUNCTIONS}


def test_the_reader_of_imports_tells_early_from_late(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nimport os.path\nif TYPE_CHECKING:\n    import torch\n"
        "class A:\n    import json\n    def f(self):\n        from ray.train import x, y\n"
        "try:\n    import numpy as np\nexcept ImportError:\n    pass\n"
    )
    assert list(imports(path)) == [
        ("typing.TYPE_CHECKING", True),
        ("os.path", True),
        ("json", True),
        ("ray.train.x", False),
        ("ray.train.y", False),
        ("numpy", True),
    ]
