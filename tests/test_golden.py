"""The published method's vectors, and the command that compares the package with them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.golden.__main__ import PENDING, checks, item_of, main, run

HERE = Path(__file__).parent / "golden"
FOLDERS = [HERE, *([Path(os.environ["SPML_GOLDEN"])] if "SPML_GOLDEN" in os.environ else [])]
FILES = [path for folder in FOLDERS for path in sorted(folder.glob("*.npz"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_package_reproduces(path):
    verdict, line = run(path, checks())
    if verdict == "pending":
        pytest.skip(line)
    assert verdict == "passed", line


def test_a_named_folder_is_not_empty():
    assert all(list(folder.glob("*.npz")) for folder in FOLDERS)


def test_the_selection_is_small():
    assert sum(path.stat().st_size for path in HERE.glob("*.npz")) <= 4_000_000


@pytest.fixture
def schedule() -> dict[str, np.ndarray]:
    """The arrays of a small item."""
    with np.load(HERE / "j_lr_open.npz") as z:
        return {name: z[name] for name in z.files}


def test_all_passed_is_status_0(tmp_path, schedule, capsys):
    np.savez(tmp_path / "j_lr_other.npz", **schedule)
    assert main([str(tmp_path)]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("j_lr_other.npz: j_lr passed, worst error ") and "tolerance 1e-12" in first
    assert last == "1 passed, 0 failed"


def test_an_array_that_differs_fails(tmp_path, schedule, capsys):
    np.savez(tmp_path / "j_lr_a.npz", **schedule)
    np.savez(tmp_path / "j_lr_b.npz", **schedule | {"poly": schedule["poly"] + 1e-9})
    assert main([str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "j_lr_b.npz: j_lr failed, worst error 1e-09 (poly)" in said
    assert said.endswith("1 passed, 1 failed\n")


def test_a_number_that_is_no_number_fails(tmp_path, schedule):
    np.savez(tmp_path / "j_lr_a.npz", **schedule | {"poly": schedule["poly"] * np.nan})
    assert main([str(tmp_path)]) == 1


def test_an_array_that_is_missing_fails(tmp_path, schedule, capsys):
    del schedule["poly"]
    np.savez(tmp_path / "j_lr_a.npz", **schedule)
    assert main([str(tmp_path)]) == 1
    assert "j_lr failed with an error" in capsys.readouterr().out


def test_a_file_that_is_no_archive_fails(tmp_path):
    (tmp_path / "j_lr_a.npz").write_bytes(b"nothing of the kind")
    assert main([str(tmp_path)]) == 1


def test_an_unknown_item_is_status_1(tmp_path, schedule, capsys):
    np.savez(tmp_path / "z_new_open.npz", **schedule)
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().out == "z_new_open.npz: unknown item\n0 passed, 1 failed\n"


def test_pending_items_are_said_to_be_pending(tmp_path, schedule, capsys, monkeypatch):
    monkeypatch.setattr("tests.golden.__main__.PENDING", frozenset({"z_later"}))
    np.savez(tmp_path / "z_later_open.npz", **schedule)
    np.savez(tmp_path / "j_lr_open.npz", **schedule)
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "z_later_open.npz: z_later pending\n" in said
    assert said.endswith("1 passed, 0 failed, 1 pending\n")


def test_an_empty_folder_is_status_1(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "no .npz files" in capsys.readouterr().err


def test_nothing_is_both_pending_and_checked():
    assert not PENDING & set(checks())


@pytest.mark.parametrize(
    ("stem", "item"),
    [("f_segsort_open", "f_segsort"), ("f_set_segsort", "f_set_segsort"), ("c2_segment_x", "c2_segment")],
)
def test_a_file_belongs_to_the_longest_item_that_its_name_begins_with(stem, item):
    assert item_of(stem, {"f_segsort", "f_set_segsort", "f_set", "c_kmeans", "c2_segment", "c2"}) == item
    assert item_of("c2segment_x", {"c2"}) is None
