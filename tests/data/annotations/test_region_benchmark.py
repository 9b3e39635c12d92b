"""`python -m benchmarks.regions` on a folder of two small images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import regions as benchmark


@pytest.fixture
def root(tmp_path):
    for folder in ("images", "segs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "val.txt").write_text("a\nb\n")
    for seed, image_id in enumerate("ab"):
        coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize((96, 72)).save(tmp_path / "images" / f"{image_id}.jpg", quality=95)
        for person in range(2):
            outlined = np.indices((72, 96))[person] // 24
            Image.fromarray(outlined.astype(np.uint8)).save(tmp_path / "segs" / f"{image_id}_{person}.png")
    return tmp_path


def test_every_method_has_a_row_at_every_target(root, tmp_path, capsys):
    out = tmp_path / "rows.json"
    assert benchmark.main(["--root", str(root), "--split", "val", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["method"], row["target"]) for row in rows] == [
        (name, target) for name in ("ucm", "slic", "felzenszwalb") for target in (40, 80, 160)
    ]
    for row in rows:
        assert list(row) == [
            "method", "target", "regions", "boundary_recall", "undersegmentation_error",
            "achievable_accuracy", "seconds_per_image",
        ]  # fmt: skip
        assert 0 < row["boundary_recall"] <= 1 and 0.5 < row["achievable_accuracy"] <= 1
    assert [row["regions"] for row in rows[:2]] == [40, 80]
    assert "felzenszwalb" in capsys.readouterr().out


def test_numbers_are_means_over_people(root):
    image = benchmark.read(root, "val", images=1)[0]
    assert len(image.people) == 2
    row = benchmark.row("ucm", 40, [image])
    regions = benchmark.ucm(image.image, 40, 1.0)
    expected = np.mean([benchmark.boundary_recall(regions, truth) for truth in image.people])
    assert row["boundary_recall"] == pytest.approx(expected)


def test_a_folder_without_the_split_or_without_segmentations_ends_with_status_2(root, capsys):
    assert benchmark.main(["--root", str(root), "--split", "test"]) == 2
    assert "test.txt: no such split" in capsys.readouterr().err
    (root / "odd.txt").write_text("c\n")
    assert benchmark.main(["--root", str(root), "--split", "odd"]) == 2
    assert "no segmentations of odd" in capsys.readouterr().err
