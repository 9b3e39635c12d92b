"""The published method's vectors, and the command that compares the package with them."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.golden.__main__ import checks, files, item_of, main, run
from tests.golden_items.architecture import model_param_table

HERE = Path(__file__).parent / "golden"
FOLDERS = [HERE, *([Path(os.environ["SPML_GOLDEN"])] if "SPML_GOLDEN" in os.environ else [])]
FILES = [path for folder in FOLDERS for path in files(folder)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_package_reproduces(path):
    verdict, line = run(path, checks())
    assert verdict == "passed", line


def test_a_named_folder_is_not_empty():
    assert all(files(folder) for folder in FOLDERS)


def test_the_selection_is_small():
    assert sum(path.stat().st_size for path in files(HERE)) <= 4_000_000


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
    message = capsys.readouterr().out
    assert "j_lr_b.npz: j_lr failed, worst error 1e-09 (poly)" in message
    assert message.endswith("1 passed, 1 failed\n")


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


def changed(table: dict, place: list) -> dict:
    """The table with one entry of it changed: a number, a truth value or a word."""
    table = copy.deepcopy(table)
    part = table
    for step in place[:-1]:
        part = part[step]
    match part[place[-1]]:
        case bool() as value:
            part[place[-1]] = not value
        case str() as value:
            part[place[-1]] = f"no {value}"
        case value:
            part[place[-1]] = value + 1
    return table


@pytest.mark.parametrize(
    "place",
    [
        ["deeplab101_voc", 40, 0],
        ["deeplab101_voc", 40, 1, 0],
        ["deeplab101_voc", 0, 2, 0],
        ["deeplab101_voc", -1, 2, 0],
        ["deeplab101_voc", -1, 2, 1],
        ["pspnet101_densepose", -1, 1, 2],
        ["deeplab101_voc_bn", "resnet_backbone.res4.7.bn2", 0],
        ["pspnet101_densepose_bn", "pspp.0.conv.1", 1],
        *(["deeplab101_voc_conv", "resnet_backbone.res5.1.conv2", *at] for at in ([0], [1], [2, 0], [3, 1])),
        *(["pspnet101_densepose_conv", "pspp.1", *at] for at in ([4, 0], [5, 1], [6])),
        ["head_voc", 2, 1, 0],
    ],
    ids=str,
)
def test_any_entry_of_the_table_of_parameters_counts(place):
    table = json.loads((HERE / "model_param_table.json").read_text())
    rows = model_param_table(changed(table, place))
    assert sum(error for _, error, _ in rows) >= 1


def test_an_empty_folder_is_status_1(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "no .npz or .json files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stem", "item"),
    [("f_segsort_open", "f_segsort"), ("f_set_segsort", "f_set_segsort"), ("c2_segment_x", "c2_segment")],
)
def test_a_file_belongs_to_the_longest_item_that_its_name_begins_with(stem, item):
    assert item_of(stem, {"f_segsort", "f_set_segsort", "f_set", "c_kmeans", "c2_segment", "c2"}) == item
    assert item_of("c2segment_x", {"c2"}) is None
