"""Experiments: any YAML and any override is a configuration, or refused in one line."""

from __future__ import annotations

import tempfile
from pathlib import Path

import yaml
from hypothesis import given
from hypothesis import strategies as st

from spml_dist.config import Config, dump, explain, load
from spml_dist.config.suggest import fields
from spml_dist.errors import ConfigError
from tests.fuzz.conftest import fuzz
from tests.fuzz.damage import JSON, damaged, spoilt

SMALL = Path(__file__).parents[1] / "small.yaml"
SOUND = SMALL.read_bytes()
KEYS = st.sampled_from(sorted(fields())) | st.text(max_size=12)
VALUES = (
    st.text(max_size=20)
    | JSON.map(lambda value: yaml.safe_dump(value, default_flow_style=True, width=10**9).strip())
    | st.sampled_from(
        ["1e999", "!!python/name:os.system", "&a [*a]", "? x", "2001-01-01", "0o7", "-", "[", "{a: b"]
    )
)


def tried(path: Path, *overrides: str) -> None:
    """A configuration that comes back from its own text, or one line."""
    try:
        config = load(path, overrides)
    except ConfigError as error:
        assert "\n" not in str(error) and str(error)
        return
    assert isinstance(config, Config) and len(explain(path, overrides)[1]) > 50
    again = path.with_name("again.yaml")
    again.write_text(dump(config), encoding="utf-8")
    assert load(again) == config


@fuzz
@given(st.lists(st.tuples(KEYS, VALUES).map("=".join), max_size=3))
def test_any_override(overrides):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.yaml"
        path.write_bytes(SOUND)
        tried(path, *overrides)


@fuzz
@given(damaged(SOUND) | st.binary(max_size=60))
def test_a_damaged_file(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.yaml"
        path.write_bytes(content)
        tried(path)


@fuzz
@given(spoilt(yaml.safe_load(SOUND)))
def test_a_spoilt_experiment(value):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.yaml"
        path.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
        tried(path)
