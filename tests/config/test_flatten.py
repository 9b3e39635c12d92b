"""A configuration written out, compared and flattened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.config import Config, differences, dump, flatten, load
from tests.conftest import SMALL

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_dumped_experiment_loads_to_the_same(path: Path, tmp_path: Path):
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump(load(path)))
    assert load(copy) == load(path)
    assert dump(load(copy)) == dump(load(path))


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1)
AWKWARD = st.sampled_from(
    [
        "1e-3",
        "yes",
        "null",
        "~",
        "1:30",
        "a: b",
        "#x",
        "x #y",
        "- a",
        "a\nb",
        "'",
        '"',
        " a ",
        "010",
        "2024-01-01",
    ]
)


@settings(deadline=None, max_examples=50)
@given(TEXTS | AWKWARD, st.floats(1e-12, 1e12), st.lists(TEXTS | AWKWARD))
def test_any_text_and_number_survives_the_file_for_this_reader_and_for_any_other(
    tmp_path_factory, output: str, rate: float, frozen: list[str]
):
    before = load(SMALL).model_dump()
    before["output"], before["optimizer"]["lr"], before["model"]["frozen"] = output, rate, tuple(frozen)
    config = Config.model_validate(before)
    path = tmp_path_factory.mktemp("dump") / "x.yaml"
    path.write_text(dump(config), encoding="utf-8")
    assert load(path) == config
    plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert (plain["output"], plain["optimizer"]["lr"], plain["model"]["frozen"]) == (output, rate, frozen)


def test_a_configuration_survives_json():
    config = load(SMALL)
    assert Config.model_validate(config.model_dump(mode="json")) == config
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_flattened_values_are_scalars_with_lists_as_json():
    flat = flatten(load(SMALL))
    assert flat["stream.batch"] == 8
    assert flat["data.test"] is None
    assert json.loads(flat["segments.grid"]) == [6, 6]
    assert all(value is None or isinstance(value, str | int | float | bool) for value in flat.values())


def test_differences_name_what_was_overridden_and_nothing_else():
    a, b = load(SMALL), load(SMALL, ["stream.batch=4", "segments.grid=[4, 6]"])
    assert differences(a, a) == []
    assert differences(a, b) == [("stream.batch", 8, 4), ("segments.grid", "[6, 6]", "[4, 6]")]
