"""What older files and commands say: keys that were renamed, removed, or not there yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from spml_dist.config import differences, dump, explain, flatten, load, migrations, read_section
from spml_dist.config.models import ModelConfig
from spml_dist.config.suggest import fields
from spml_dist.errors import ConfigError
from tests.config.test_keys import KEYS

FIXTURES = Path(__file__).parents[1] / "fixtures" / "v1"
OLD = (
    (FIXTURES / "runs" / "recent" / "config.yaml")
    .read_text(encoding="utf-8")
    .replace("steps: 8", "steps: 800")
)
"""a run's config.yaml of version 1, with every key of then, made longer than the default warm-up"""

ADDED = {
    "model.norm_momentum": 0.1,  # torch's own
    "stream.mirror_swaps": "[]",
    "stream.skip_corrupt": 0.0,
    "stream.cache": None,
    "segments.colour": "none",
    "segments.embedding_scale": 1.0,
    "relations.image_similarity.local_features": True,
    "relations.feature_affinity.weight": 0.0,
    "relations.feature_affinity.neighbours": 1,
    "relations.feature_affinity.margin": 0.0,
    "optimizer.clip_norm": None,
    "bank.candidates": "recent",
    "bank.storage": "float32",
    "bank.warmup": 0,
    "bank.max_age": None,
    "bank.own_images": False,
    "bank.gpu_index": False,
    "bank.encoder_momentum": None,
    "segments.labels": "nearest",
    "optimizer.clip": "together",
    "cam.lr": None,
    "model.embedding": None,
    "stream.grey": 0.0,
    "stream.blur": 0.0,
}
"""keys that came after the first shipped experiment → what was done before they were there"""

NEW_SECTIONS = {"labeling", "classifier"}
"""that version 1 did not have"""

SINCE_VERSION_1 = {
    *("loss.pixels_per_segment", "segments.labels", "optimizer.clip", "cam.lr"),
    "relations.cooccurrence.own_image",
    *("model.embedding", "stream.grey", "stream.blur", "engine.max_failures", "engine.patience"),
    *("loss.fused", "loss.products", "engine.micro_batches", "model.checkpointing"),
    *("engine.tf32", "engine.deterministic", "engine.channels_last", "engine.compile"),
    "checkpoint.remote",
    *("optimizer.kind", "optimizer.second_momentum", "optimizer.decay_norms", "optimizer.layer_decay"),
    *(key for key in KEYS if key.partition(".")[0] in NEW_SECTIONS),
}
"""keys that version 1 did not know"""


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def mistake(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def without(text: str, key: str) -> str:
    """A dumped configuration without one key."""
    lines, parents = [], []
    for line in text.splitlines(keepends=True):
        depth = (len(line) - len(line.lstrip())) // 2
        parents = [*parents[:depth], line.strip().partition(":")[0]]
        if ".".join(parents) != key:
            lines.append(line)
    return "".join(lines)


def test_the_default_of_a_key_that_was_added_is_what_its_absence_meant():
    defaults = flatten(load(Path(__file__).parents[2] / "configs" / "reference.yaml"))
    assert {key: defaults[key] for key in ADDED} == ADDED


def test_every_run_of_version_1_opens():
    assert [load(path).name for path in sorted(FIXTURES.glob("runs/*/config.yaml"))] == [
        "global",
        "global_cam",
        "recent",
    ]


def old_keys() -> list[str]:
    names = {current: old for old, current in migrations.RENAMED.items()}
    return [names.get(key, key) for key in KEYS if key not in {"name", "data.train", *SINCE_VERSION_1}]


@pytest.mark.parametrize("key", old_keys())
def test_a_run_folder_opens_whichever_key_its_release_did_not_know(key: str, write):
    text = without(OLD, key)
    assert text.count("\n") == OLD.count("\n") - 1
    whole = load(write(OLD))
    config, origins = explain(write(text))
    today = migrations.RENAMED.get(key, key)
    assert {each for each, origin in origins.items() if origin == "default"} == {today, *SINCE_VERSION_1}
    assert {each for each, *_ in differences(whole, config)} <= {today}


@pytest.mark.parametrize(
    "section", [key for key in fields() if key.count(".") == 0 and key not in {"name", *NEW_SECTIONS}]
)
def test_a_run_folder_opens_whichever_section_its_release_did_not_know(section: str, write):
    head = next(n for n, line in enumerate(OLD.splitlines()) if line.startswith(f"{section}:"))
    lines = OLD.splitlines(keepends=True)
    end = next((n for n in range(head + 1, len(lines)) if not lines[n].startswith(" ")), len(lines))
    path = write("".join(lines[:head] + lines[end:]))
    if section == "data":
        assert mistake(path).startswith(f"data is missing from {path}")
    else:
        assert load(path).name == "recent"


class TestRenamed:
    def test_a_file_says_what_it_said(self, write):
        config, origins = explain(write(OLD))
        line = next(n for n, text in enumerate(OLD.splitlines(), 1) if text.startswith("  shards: 2"))
        assert config.bank.partitions == 2
        assert origins["bank.partitions"].endswith(f"config.yaml:{line}")
        assert load(write(dump(config))) == config and "  shards: 2" not in dump(config)

    def test_the_old_name_overrides_the_new_one_and_says_so_once(self, write, capsys):
        path = write(OLD.replace("  shards: 2", "  partitions: 2"))
        assert load(path, ["bank.shards=4"]).bank.partitions == 4
        assert capsys.readouterr().err == "spml-dist: bank.shards is bank.partitions today\n"
        assert load(path, ["bank={shards: 4}"]).bank.partitions == 4
        capsys.readouterr()
        load(path, ["bank.partitions=4"])
        assert capsys.readouterr().err == ""

    def test_both_names_at_once_are_a_mistake(self, write):
        path = write(OLD.replace("  shards: 2\n", "  shards: 2\n  partitions: 3\n"))
        line = OLD[: OLD.index("  shards: 2")].count("\n") + 1
        assert mistake(path) == (
            f"bank.shards at {path}:{line} is bank.partitions today, which is given at {path}:{line + 1} "
            "too; remove bank.shards"
        )

    def test_an_unfit_value_is_told_by_the_new_name_where_the_old_one_stands(self, write):
        path = write(OLD.replace("  shards: 2", "  shards: none"))
        assert "bank.partitions at " in mistake(path) and "expected an integer of at least 1" in mistake(path)

    def test_every_key_of_today_that_the_table_names_is_one(self):
        assert set(migrations.RENAMED.values()) <= set(fields())
        assert not (set(migrations.RENAMED) | set(migrations.REMOVED)) & set(fields())


class TestRemoved:
    @pytest.fixture(autouse=True)
    def _one(self, monkeypatch):
        monkeypatch.setitem(
            migrations.REMOVED, "bank.twice", (False, "no bank keeps its rows twice: remove it")
        )

    def test_the_value_that_meant_what_is_done_today_is_passed_over(self, write, capsys):
        text = OLD.replace("bank:\n", "bank:\n  twice: false\n")
        assert load(write(text)) == load(write(OLD))
        assert load(write(OLD), ["bank.twice=false"]) == load(write(OLD))
        assert capsys.readouterr().err == "spml-dist: bank.twice is no longer needed\n"

    def test_any_other_says_what_to_do(self, write):
        path = write(OLD.replace("bank:\n", "bank:\n  twice: true\n"))
        line = OLD[: OLD.index("bank:")].count("\n") + 2
        assert mistake(path) == (
            f"bank.twice at {path}:{line} is no longer a configuration key (got true); "
            "no bank keeps its rows twice: remove it"
        )
        assert "bank.twice on the command line is no longer" in mistake(write(OLD), "bank.twice=true")


class TestSectionOfAnotherFile:
    def test_what_it_lacks_has_its_default(self):
        assert read_section("model", ModelConfig, {"embedding_dim": 8}, Path("model.json")) == ModelConfig(
            embedding_dim=8
        )

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"embeding_dim": 8}, "model.embeding_dim at model.json is not a configuration key (got 8); did"),
            ({"embedding_dim": "8"}, 'model.embedding_dim at model.json (got "8"); expected an integer'),
            ([], "model at model.json (got []); expected a section"),
        ],
    )
    def test_a_mistake_names_key_and_file(self, values, message):
        with pytest.raises(ConfigError) as caught:
            read_section("model", ModelConfig, values, Path("model.json"))
        assert str(caught.value).startswith(message)
