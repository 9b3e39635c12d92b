"""Where a sample's regions come from."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from spml_dist.cli import main
from spml_dist.data.annotations.regions import oversegment
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.pack import region_sources
from spml_dist.data.pack.region_sources import Nested, Ready, region_source
from spml_dist.errors import ConfigError, DataError
from tests.data.conftest import HEIGHT, WIDTH, image

IMAGE = image(0)


def test_a_name_and_a_count_or_a_level_choose_the_method(tmp_path):
    assert np.array_equal(region_source("felzenszwalb")("a", IMAGE), oversegment(IMAGE))
    assert region_source("ucm") == Nested(count=80)
    assert region_source("ucm:12") == Nested(count=12)
    assert region_source("ucm@0.25") == Nested(level=0.25)
    assert region_source(str(tmp_path)) == Ready(tmp_path)


@pytest.mark.parametrize(
    "message", ["slic", "ucm:", "ucm:0", "ucm:65536", "ucm:-3", "ucm@2", "ucm@x", "away/"]
)
def test_anything_else_is_refused_and_quoted(message):
    with pytest.raises(ConfigError, match=f"--regions.*{message}"):
        region_source(message)


def test_contours_are_of_use_with_ucm_only(tmp_path):
    with pytest.raises(ConfigError, match="--contours"):
        region_source("felzenszwalb", network=tmp_path / "hed.onnx")


def test_a_count_is_met_and_a_level_leaves_fewer_the_higher_it_is():
    assert region_source("ucm:12")("a", IMAGE).max() == 11
    low, high = (region_source(f"ucm@{level}")("a", IMAGE).max() for level in (0.02, 0.2))
    assert low > high


@pytest.mark.parametrize("message", ["felzenszwalb", "ucm:9"])
def test_a_very_large_image_is_cut_by_a_smaller_one_of_it(monkeypatch, message):
    large = image(1, height=60, width=90)
    monkeypatch.setattr(region_sources, "LARGEST", 60 * 90)
    whole = region_source(message)("a", large)
    monkeypatch.setattr(region_sources, "LARGEST", 60 * 90 // 9)
    cut = region_source(message)("a", large)
    assert cut.shape == whole.shape == (60, 90) and cut.dtype == np.uint16
    small = cv2.resize(large, (30, 20), interpolation=cv2.INTER_AREA)
    assert np.array_equal(cut, np.kron(region_source(message)("a", small), np.ones((3, 3), np.uint16)))
    assert not np.array_equal(cut, whole)


def test_an_image_of_up_to_the_limit_is_cut_as_it_is(monkeypatch):
    monkeypatch.setattr(region_sources, "LARGEST", HEIGHT * WIDTH)
    assert np.array_equal(region_source("felzenszwalb")("a", IMAGE), oversegment(IMAGE))


def test_a_large_image_that_is_one_pixel_high_has_regions(monkeypatch):
    monkeypatch.setattr(region_sources, "LARGEST", 25)
    assert region_sources.even_colour("a", IMAGE[:1]).shape == (1, WIDTH)


def test_the_contour_map_is_kept_where_it_is_wanted(tmp_path):
    region_source("ucm:5", keep=tmp_path / "kept")("a.b", IMAGE)
    with Image.open(tmp_path / "kept" / "a%2Eb.png") as drawn:
        assert drawn.size == (2 * WIDTH - 1, 2 * HEIGHT - 1) and drawn.mode == "I;16"
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_contour_maps_that_find_no_room_end_the_pack_and_reject_no_image(root, tmp_path, capsys):
    (tmp_path / "file").touch()
    kept = tmp_path / "file" / "kept"
    asked = ["pack", "folder", str(root), "--labels", "lines", "--split", "train", "--out"]
    words = [str(tmp_path / "p"), "--regions", "ucm:9", "--keep-contours", str(kept)]
    assert main([*asked, *words]) == 2
    message = capsys.readouterr().err
    assert (
        f"{kept}" in message
        and "cannot be written" in message
        and "choose another --keep-contours" in message
    )
    assert "rejected" not in message and not (tmp_path / "p" / "manifest.json").exists()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_ready_made_regions_stay_as_they_are(tmp_path, dtype):
    regions = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 37 % np.iinfo(dtype).max).astype(dtype)
    Image.fromarray(regions).save(tmp_path / "a.png")
    found = region_source(str(tmp_path))("a", IMAGE)
    assert found.dtype == np.uint16 and np.array_equal(found, regions)


def test_ready_made_regions_that_do_not_fit_are_refused_by_name(tmp_path):
    source = region_source(str(tmp_path))
    with pytest.raises(DataError, match=r"a\.png: no regions"):
        source("a", IMAGE)
    Image.fromarray(np.zeros((HEIGHT, WIDTH - 1), np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=rf"a\.png.*{WIDTH}×{HEIGHT} and {WIDTH - 1}×{HEIGHT} pixels"):
        source("a", IMAGE)
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: not a PNG of region ids.*RGB"):
        source("a", IMAGE)
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"a\.png"):
        source("a", IMAGE)


def test_ready_made_regions_beyond_the_decoder_s_limit_are_refused_by_name(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded"):
        region_source(str(tmp_path))("a", IMAGE)


def test_pack_takes_the_choice_and_says_what_is_wrong_with_one(root, tmp_path, capsys):
    asked = ["pack", "folder", str(root), "--labels", "lines", "--split", "train", "--out"]
    kept = tmp_path / "kept"
    assert main([*asked, str(tmp_path / "p"), "--regions", "ucm:9", "--keep-contours", str(kept)]) == 0
    assert read_manifest(tmp_path / "p").samples == len(list(kept.iterdir())) == 4
    assert main([*asked, str(tmp_path / "q"), "--regions", "ucm@9"]) == 2
    assert "--regions (got ucm@9)" in capsys.readouterr().err
