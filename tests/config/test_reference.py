"""configs/reference.yaml: every key, what it means, what it takes and its default."""

from __future__ import annotations

from pathlib import Path

from spml_dist.config import explain, flatten, reference
from spml_dist.config.models import Config
from spml_dist.config.suggest import fields, sentence

PATH = Path(__file__).parents[2] / "configs" / "reference.yaml"


def test_the_file_is_up_to_date():
    assert PATH.read_text(encoding="utf-8") == reference(), (
        "run: spml-dist config --reference > configs/reference.yaml"
    )


def test_it_loads_to_the_defaults_and_names_every_key():
    config, origins = explain(PATH)
    defaults = Config.model_validate({"name": config.name, "data": {"train": config.data.train}})
    assert config == defaults
    assert "default" not in origins.values() and list(origins) == list(flatten(config))


def test_every_key_has_its_sentence_above_it():
    lines = [line.strip() for line in reference().splitlines()]
    at = 0
    for key in fields():
        at = next(
            number
            for number, line in enumerate(lines)
            if number > at and line.startswith(key.rpartition(".")[2] + ":")
        )
        comment = []
        while lines[at - 1 - len(comment)].startswith("#"):
            comment.insert(0, lines[at - 1 - len(comment)].removeprefix("#").strip())
        assert sentence(key) in " ".join(comment), key


def test_what_has_no_default_is_marked():
    required = [text for text in reference().split("\n\n") if "Required." in text]
    assert reference().count("Required.") == 2 and len(required) == 2
