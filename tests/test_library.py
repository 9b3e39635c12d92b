"""What `import spml_dist` offers: these names, each loaded when it is first used."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import spml_dist
from spml_dist import errors

ROOT = Path(__file__).parents[1]
LIBRARY = {
    *("segment", "SPMLLoss", "MemoryBank", "Stream"),
    *("load_config", "train", "classify", "refine", "load_model", "predict", "evaluate", "open_index"),
    *("SpmlError", "ConfigError", "DataError", "RunError", "Stopped"),
}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_library_is_this_list():
    assert set(spml_dist.__all__) == LIBRARY <= set(dir(spml_dist))


@pytest.mark.parametrize("name", sorted(LIBRARY))
def test_each_name_is_there_and_documented(name: str):
    offered = getattr(spml_dist, name)
    assert callable(offered) and inspect.getdoc(offered)
    assert getattr(spml_dist, name) is offered, "and it still is once it is loaded"


def test_importing_it_loads_nothing_heavy():
    loaded = python("import sys, spml_dist; dir(spml_dist); print(*sys.modules)").split()
    assert not {"torch", "numpy", "cv2", "yaml", "pydantic"} & set(loaded)
    assert [name for name in loaded if name.startswith("spml_dist")] == ["spml_dist"]


def test_an_error_is_caught_by_its_name_without_anything_heavy():
    loaded = python("import sys; from spml_dist import RunError; print(*sys.modules)").split()
    assert "torch" not in loaded
    assert spml_dist.RunError is errors.RunError


def test_a_misspelt_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'spmlloss'"):
        spml_dist.spmlloss  # noqa: B018


def test_types_are_published():
    assert (ROOT / "spml_dist" / "py.typed").is_file()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["spml_dist"]
