"""Dilations that no training crop reaches are noticed, and nothing that is shipped has any."""

from __future__ import annotations

from pathlib import Path

import pytest

from spml_dist.cli import main
from spml_dist.config import load
from spml_dist.config.notices import unreached_dilations
from tests.conftest import SMALL

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(path.name for path in CONFIGS.glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_fits(name):
    assert unreached_dilations(load(CONFIGS / name)) is None


@pytest.mark.parametrize(
    ("crop", "stride", "dilations", "beyond"),
    [
        (512, 8, [6, 12, 18, 24], []),
        (192, 8, [6, 12, 18, 24], [24]),
        (128, 8, [6, 12, 18, 24], [18, 24]),
        (160, 16, [1, 2, 3, 9], []),
        (160, 16, [1, 2, 3, 10], [10]),
        (161, 16, [1, 2, 3, 10], []),  # its last cells are padded
        (128, None, [6, 12, 18, 24], []),  # the backbone's own stride is not known here
    ],
)
def test_a_dilation_is_reached_if_it_is_below_the_cells_of_a_side(crop, stride, dilations, beyond):
    stride = "null" if stride is None else stride
    words = [f"stream.crop={crop}", f"model.output_stride={stride}", f"model.dilations={dilations}"]
    notice = unreached_dilations(load(SMALL, words))
    assert (notice is None) == (not beyond)
    if beyond:
        assert f"model.dilations {', '.join(map(str, beyond))} are never trained" in notice


def test_the_notice_proposes_dilations_that_fit():
    words = ["stream.crop=96", "model.dilations=[6, 12, 18, 24]"]
    assert unreached_dilations(load(SMALL, words)).endswith("the release's proportions would be [1, 2, 3, 4]")


def test_a_pyramid_of_averages_has_none():
    words = ["model.head=pspnet", "model.dilations=[]", "stream.crop=64"]
    assert unreached_dilations(load(SMALL, words)) is None


def test_config_says_so_in_one_line_beside_its_output(capsys):
    assert main(["config", str(SMALL), "model.dilations=[6, 16]"]) == 0
    printed = capsys.readouterr()
    assert "  dilations: [6, 16] " in printed.out
    assert printed.err.startswith("spml-dist: model.dilations 16 are never trained: a crop has 16 cells")
    assert printed.err.count("\n") == 1
