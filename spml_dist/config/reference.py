"""Every key of an experiment with its default and its sentence, as one YAML file: configs/reference.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from spml_dist.config import suggest
from spml_dist.config.flatten import lines
from spml_dist.config.models import Config, DataConfig

HEAD = """\
# Every key of an experiment, with its default, what it means and what it takes. A file of your own names what
# differs, and needs `name` and `data.train`. Made by: spml-dist config --reference > configs/reference.yaml

"""
WIDTH = 110
"""characters of a line of comment"""


def reference() -> str:
    """The text of configs/reference.yaml, which loads; the keys without a default have examples."""
    example = Config(name="reference", data=DataConfig(train="data/mine/train"))
    keys = iter(suggest.fields())
    return HEAD + "".join(f"{line}\n" for text, _ in lines(example) for line in _explained(text, next(keys)))


def _explained(text: str, key: str) -> Iterator[str]:
    """A line of YAML below its comment; a section has a blank line above."""
    indent = " " * (len(text) - len(text.lstrip()))
    if suggest.is_section(key):
        yield from ("", f"{indent}# {suggest.sentence(key)}", text)
        return
    takes = suggest.takes(key).replace("expected", "Takes").replace("allowed:", "Takes one of")
    need = " Required." if suggest.is_required(key) else ""
    comment = f"{suggest.sentence(key)} {takes}.{need}"
    yield from (f"{indent}# {line}" for line in wrap(comment, WIDTH - len(indent) - 2))
    yield text
