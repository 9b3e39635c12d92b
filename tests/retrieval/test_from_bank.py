"""An index of what a checkpoint's bank remembers."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from spml_dist import cli, open_index
from spml_dist.bank.snapshot import read_shards
from spml_dist.errors import RunError
from spml_dist.retrieval.from_bank import index_bank

V1 = Path(__file__).parents[1] / "fixtures" / "v1"
RUN = V1 / "runs" / "global"


def test_its_rows_are_the_banks(tmp_path, capsys):
    assert cli.main(["index", str(RUN), str(V1 / "pack/train"), "--from-bank", "--out", str(tmp_path)]) == 0
    outcome = capsys.readouterr().err
    for what in ("outlines", "whole pictures", "predicted classes"):
        assert f"no {what}: " in outcome
    parts = list(read_shards(RUN / "checkpoints/step_000004/bank"))
    rows = pq.read_table(tmp_path / "metadata").to_pylist()
    assert len(rows) == sum(map(len, parts)) > 10
    assert [row["segment"] for row in rows] == [number for part in parts for number in part.segment.tolist()]
    collection = open_index(tmp_path)
    classes = [collection.classes[label] if label >= 0 else None for p in parts for label in p.label.tolist()]
    assert [row["class"] for row in rows] == classes
    answer = collection.query(segment=0, k=3)[0]
    assert len(answer.neighbours) == 3 and all(each.segment.predicted is None for each in answer.neighbours)
    assert collection.index.path(answer.segment).count("L") == 3, "its box is its outline"
    assert collection.index.pictures.read(*answer.segment.place, answer.segment.key)


def test_a_bank_of_other_images_is_refused(tmp_path):
    with pytest.raises(RunError, match="images that the packs do not hold"):
        index_bank(RUN, [str(V1 / "pack/val")], tmp_path / "index")


def test_a_run_without_a_bank_of_the_whole_set_is_refused(tmp_path):
    with pytest.raises(RunError, match="last steps alone"):
        index_bank(V1 / "runs" / "recent", [str(V1 / "pack/train")], tmp_path / "index")
