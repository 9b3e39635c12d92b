"""Reading an experiment: what is accepted, and which one line a mistake gives."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spml_dist.config import dump, expanded, explain, flatten, load
from spml_dist.config.suggest import fields
from spml_dist.errors import ConfigError
from tests.conftest import SMALL

TEXT = dump(load(SMALL))
"""the same experiment with every key"""


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str, name: str = "x.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return _write


def mistake(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestValues:
    def test_an_integer_stands_for_a_float_but_not_the_other_way(self):
        rate = load(SMALL, ["optimizer.lr=1"]).optimizer.lr
        assert rate == 1.0 and isinstance(rate, float)
        assert "expected an integer" in mistake(SMALL, "stream.batch=8.0")

    @pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", "0.001", ".001", "+1e-03"])
    def test_every_way_to_write_a_thousandth_is_a_number(self, text: str, write):
        assert load(SMALL, [f"optimizer.lr={text}"]).optimizer.lr == 1e-3
        assert load(write(TEXT.replace("lr: 0.02", f"lr: {text}"))).optimizer.lr == 1e-3

    @pytest.mark.parametrize("text", ["yes", "on", "1", "'true'", "null"])
    def test_only_true_and_false_are_booleans(self, text: str):
        assert "expected true or false" in mistake(SMALL, f"stream.mirror={text}")

    @pytest.mark.parametrize("key", ["stream.batch", "optimizer.lr", "engine.zero_stage", "seed"])
    def test_true_is_not_a_number(self, key: str):
        assert mistake(SMALL, f"{key}=true").startswith(f"{key} on the command line (got true)")

    @pytest.mark.parametrize("text", ["20240512", "007", "3.14", "1e3", "1_000", ".5e1"])
    def test_a_number_where_a_text_is_due_is_the_text_that_was_written(self, text: str, write):
        assert load(SMALL, [f"tracking.experiment={text}"]).tracking.experiment == text
        config = load(write(re.sub(r"(?m)^name: .*$", f"name: {text.lstrip('.')}", TEXT)))
        assert config.name == text.lstrip(".")
        assert load(write(dump(config))) == config

    @pytest.mark.parametrize("text", ["true", "[1]", "null"])
    def test_other_values_are_no_text(self, text: str):
        assert "tracking.experiment" in mistake(SMALL, f"tracking.experiment={text}")

    @pytest.mark.parametrize(
        "text",
        ["&a [*a]", "{x: &a [1], y: [*a, *a]}", "!!timestamp x", "!!int x", "!!bool x", "\0", "[" * 3000],
    )
    def test_what_yaml_cannot_read_or_could_not_end_is_a_mistake(self, text: str, write):
        assert mistake(SMALL, f"stream.scale={text}").startswith("stream.scale on the command line")
        assert "is not YAML" in mistake(write(TEXT.replace("scale:", f"scale: {text}\n#")))

    @pytest.mark.parametrize("text", [".inf", ".nan", "-.inf"])
    def test_numbers_are_finite(self, text: str):
        assert "optimizer.lr" in mistake(SMALL, f"optimizer.lr={text}")

    def test_a_configuration_is_frozen_and_hashable(self):
        config = load(SMALL)
        assert hash(config) == hash(load(SMALL))
        with pytest.raises(Exception, match="frozen"):
            config.stream.batch = 3

    def test_overrides_take_lists_nulls_and_whole_sections(self):
        config = load(
            SMALL,
            [
                "relations.cooccurrence.ignore_classes=[1,2]",
                "data.test=null",
                "relations.annotation={weight: 2, concentration: 7}",
            ],
        )
        assert config.relations.cooccurrence.ignore_classes == (1, 2)
        assert config.data.test is None
        assert (config.relations.annotation.weight, config.relations.annotation.concentration) == (2.0, 7.0)

    def test_a_list_of_pairs_is_a_tuple_of_tuples_and_is_written_and_read_alike(self, write):
        overrides = ["stream.mirror_swaps=[[2,3],[4,5]]", "relations.cooccurrence.weight=0"]
        config = load(SMALL, overrides)
        assert config.stream.mirror_swaps == ((2, 3), (4, 5))
        assert load(write(dump(config))) == config
        assert flatten(config)["stream.mirror_swaps"] == "[[2, 3], [4, 5]]"

    def test_the_last_override_of_a_key_counts(self):
        assert load(SMALL, ["stream.batch=4", "stream.batch=6"]).stream.batch == 6

    def test_an_override_of_a_section_leaves_the_keys_it_does_not_name(self, write):
        path = write(TEXT.replace("concentration: 6.0", "concentration: 5.0"))
        annotation = load(path, ["relations.annotation={weight: 2}"]).relations.annotation
        assert (annotation.weight, annotation.concentration) == (2.0, 5.0)

    def test_a_file_needs_a_name_and_data_to_train_on_and_has_defaults_for_the_rest(self, write):
        config = load(write("name: mine\ndata: {train: data/mine/train}\n"))
        assert (config.name, config.data.train, config.data.val) == ("mine", "data/mine/train", None)
        assert dump(config) == dump(load(write(dump(config), "whole.yaml")))


class TestOrigins:
    @pytest.mark.parametrize("text", [SMALL.read_text(), TEXT], ids=["short", "whole"])
    def test_every_value_says_its_line_or_that_it_was_overridden_or_is_the_default(self, write, text: str):
        path = write(text)
        config, origins = explain(path, ["stream.batch=4"])
        assert config == load(SMALL, ["stream.batch=4"])
        assert list(origins) == list(flatten(config)) and origins["stream.batch"] == "override"
        for key, origin in origins.items():
            if origin not in ("override", "default"):
                file, line = origin.rsplit(":", 1)
                assert file == str(path)
                assert key.rpartition(".")[2] in text.splitlines()[int(line) - 1]

    def test_the_default_is_the_origin_of_what_is_not_named(self, write):
        _, origins = explain(SMALL)
        assert origins["seed"] == origins["loss.reduction"] == origins["data.test"] == "default"
        assert "default" not in explain(write(TEXT))[1].values()


class TestMistakes:
    def test_a_misspelt_key_names_file_line_and_the_nearest_key(self, write):
        path = write("name: mine\ndata: {train: data/mine}\nrelations:\n  annotaton: {weight: 1}\n")
        assert mistake(path) == (
            f"relations.annotaton at {path}:4 is not a configuration key; did you mean relations.annotation?"
        )

    def test_a_choice_lists_what_is_allowed(self, write):
        assert "loss.reduction on the command line (got mean); allowed: global, per_rank" in mistake(
            SMALL, "loss.reduction=mean"
        )
        path = write(TEXT.replace("reduction: global", "reduction: mean"))
        assert re.match(
            rf"loss.reduction at {path}:\d+ \(got mean\); allowed: global, per_rank", mistake(path)
        )

    def test_a_key_of_another_section_is_found(self):
        assert "did you mean stream.batch or classifier.batch?" in mistake(SMALL, "batch=3")
        assert "segments.iterations or evaluation.iterations" in mistake(SMALL, "iterations=3")

    def test_a_key_of_another_section_is_found_although_a_short_file_lacks_names_like_it(self, write):
        path = write("name: mine\ndata: {train: data/mine}\nsteps: 100\n")
        steps = "bank.steps or schedule.steps or cam.steps or labeling.steps or classifier.steps"
        assert f"did you mean {steps}?" in mistake(path)

    @pytest.mark.parametrize(
        ("override", "part"),
        [
            ("stream.batch=eight", "(got eight); expected an integer of at least 1"),
            (
                "relations.annotation.concentration=41",
                "(got 41); expected a number above 0 and of at most 40",
            ),
            ("relations.annotation.concentration=0", "float32"),
            ("segments.grid=[6,0]", "expected a list of 2, each an integer of at least 1"),
            ("segments.grid=[6]", "expected a list of 2"),
            ("relations.cooccurrence.ignore_classes=[-1]", "of at least 0"),
            ("evaluation.longer_side=none", "of at least 16 or null"),
            ("model.feature_level=-2", "of at least -1"),
            ("engine.workers=0", "expected an integer of at least 1"),
            ("engine.workers=[0, 2]", "or a list of 2, each an integer of at least 1"),
            ("engine.workers=[1, 2, 3]", "or a list of 2, each an integer of at least 1"),
            ("stream.mirror_swaps=[[1]]", "expected a list, each a list of 2, each an integer of at least 0"),
            ("stream.mirror_swaps=[1, 2]", "expected a list, each a list of 2"),
            ("relations.feature_affinity.scope=bank", "allowed: image, batch, global"),
            ("relations.feature_affinity.margin=1.5", "expected a number of at least 0 and of at most 1"),
            ("relations.feature_affinity.neighbours=0", "expected an integer of at least 1"),
            ("bank.candidates=all", "allowed: recent, nearest+sampled, nearest, exact"),
            ("bank.storage=float64", "allowed: float32, float16, bfloat16"),
            ("bank.max_age=0", "expected an integer of at least 1 or null"),
            ("bank.min_recall=0", "expected a number above 0 and of at most 1"),
            ("bank.encoder_momentum=1", "expected a number above 0 and below 1 or null"),
            ("bank.own_images=1", "expected true or false"),
            ("stream=5", "expected a section with the keys batch, crop"),
            ("name=a/b", "Name of the run"),
            ("data.test=", "write data.test=null"),
            ("stream.batch", "has no '='"),
            ("name=[", "is not YAML"),
            ("name={a: 1}", "name.a on the command line is not a configuration key"),
        ],
    )
    def test_a_wrong_value_says_what_is_expected(self, override: str, part: str):
        message = mistake(SMALL, override)
        assert part in message
        assert override.partition("=")[0] in message

    def test_a_missing_key_is_named_with_its_file(self, write):
        path = write(TEXT.replace("name: quickstart\n", ""))
        assert mistake(path).startswith(
            f"name is missing from {path}; add it: expected a text. Name of the run"
        )
        path = write("name: mine\ndata: {val: data/mine/val}\n")
        assert mistake(path).startswith(f"data.train is missing from {path}; add it: expected a text")

    def test_a_missing_section_is_named_once(self, write):
        path = write(re.sub(r"data:\n(  .*\n)+", "", TEXT))
        assert mistake(path).startswith(f"data is missing from {path}; add it: expected a section")

    def test_a_key_given_twice_names_both_lines(self, write):
        path = write(f"{TEXT}name: again\n")
        last = TEXT.count("\n") + 1
        assert mistake(path) == f"name at {path}:{last} is given twice; it is also at line 1"

    def test_a_key_with_a_dot_is_refused(self, write):
        assert "has a dot" in mistake(write(f"{TEXT}stream.batch: 4\n"))

    @pytest.mark.parametrize(
        "text", ["a: [1, 2\nb: 3\n", "a: b: c\n", "\tname: x\n", "a: !!python/name:os.system\n"]
    )
    def test_what_is_not_yaml_names_the_line(self, text: str, write):
        assert re.search(r"x\.yaml:\d+ is not YAML: .*; correct that line", mistake(write(text)))

    @pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "words\n"])
    def test_what_is_no_mapping_is_refused(self, text: str, write):
        assert "a configuration is a mapping of sections" in mistake(write(text))

    def test_an_absent_file_suggests_the_nearest(self, write, tmp_path: Path):
        assert "did you mean" in mistake(SMALL.with_name("smal.yaml"))
        assert "small.yaml?" in mistake(SMALL.with_name("smal.yaml"))
        assert "there is no YAML file" in mistake(tmp_path / "nowhere" / "a.yaml")
        path = write(TEXT)
        assert f"has {path.name}" in mistake(path.with_name("entirely-different"))

    def test_a_folder_or_bytes_are_refused(self, tmp_path: Path):
        assert "cannot be read" in mistake(tmp_path)
        path = tmp_path / "image.yaml"
        path.write_bytes(b"\xff\xd8\xff")
        assert "is not text" in mistake(path)


GLOBAL_AFFINITY = ("relations.feature_affinity.scope=global", "relations.feature_affinity.weight=0.5")


class TestRulesBetweenFields:
    @pytest.mark.parametrize(
        ("overrides", "part"),
        [
            (["model.dilations=[]"], "model.dilations (got []); model.head deeplab needs at least one"),
            (["model.head=pspnet"], "(got [2, 3, 5, 6]); model.head pspnet has none: set it to []"),
            (["stream.batch=9", "engine.accumulation=2"], "stream.batch (got 9); it must be a multiple of"),
            (["stream.batch=4", "engine.accumulation=4"], "needs an image for each of the 2 engine.workers"),
            (["stream.scale=[1.5, 0.5]"], "stream.scale (got [1.5, 0.5])"),
            (
                ["stream.mirror_swaps=[[2, 3], [3, 4]]"],
                "(got [[2, 3], [3, 4]]); a class changes places with one",
            ),
            (["stream.mirror_swaps=[[2, 2]]"], "name it once"),
            (["stream.mirror_swaps=[[2, 3]]", "stream.mirror=false"], "stream.mirror is false: set it to []"),
            (["segments.grid=[33, 6]"], "segments.grid (got [33, 6]); at most 32"),
            (["schedule.warmup=400"], "schedule.warmup (got 400); it must be below schedule.steps"),
            (["schedule.policy=step", "schedule.power=null"], "needs steps at which to decay"),
            (["schedule.policy=step", "schedule.decays=[10]"], "schedule.power (got 0.9)"),
            (["schedule.decays=[10]"], "schedule.decays (got [10]); schedule.policy poly has none"),
            (["schedule.power=null"], "schedule.power (got null)"),
            (
                ["schedule.policy=step", "schedule.power=null", "schedule.decays=[20, 10]"],
                "steps must rise and stay below schedule.steps",
            ),
            (["model.pretrained=true", "model.weights=w.safetensors"], "choose one"),
            (["tracking.uri=file:runs"], "sqlite:///FILE"),
            (["tracking.uri=https://me:s3cret@mlflow:5000"], "(got of mlflow:5000); give them by MLFLOW_"),
            (
                [
                    "relations.image_similarity.weight=0",
                    "relations.annotation.weight=0",
                    "relations.cooccurrence.weight=0",
                    "loss.cross_entropy=0",
                ],
                "nothing would be trained",
            ),
            (["engine.workers=[3, 2]"], "engine.workers (got [3, 2]); the fewest come first: [2, 3]"),
            (
                ["engine.workers=[1, 2]", "loss.reduction=per_rank"],
                "loss.reduction per_rank makes another loss of every number of workers: name one",
            ),
            (["engine.workers=[1, 13]"], "needs an image for each of the 13 engine.workers"),
            (
                ["bank.partitions=3", "engine.workers=[1, 4]"],
                "bank.partitions (got 3); each of the 4 engine.workers owns at least one",
            ),
            (
                ["bank.partitions=3", "engine.workers=4"],
                "bank.partitions (got 3); each of the 4 engine.workers owns at least one",
            ),
            (
                ["bank.capacity=287", "bank.partitions=2"],
                "bank.capacity (got 287); a step has about 288 segments",
            ),
            (
                ["bank.capacity=2303", "bank.partitions=64"],
                "bank.capacity (got 2303); each of the 64 bank.partitions needs room for an image of about 36"
                " segments: make it at least 2304 or lower bank.partitions",
            ),
            (["bank.warmup=400"], "bank.warmup (got 400); it must be below schedule.steps, which is 400"),
            (
                ["relations.feature_affinity.scope=global", "relations.feature_affinity.local_features=true"],
                "relations.feature_affinity.local_features (got true); the bank",
            ),
            (
                [*GLOBAL_AFFINITY, "bank.candidates=recent"],
                "relations.feature_affinity.scope (got global); bank.candidates recent keeps no bank",
            ),
            (
                ["bank.encoder_momentum=0.99", "bank.candidates=recent"],
                "bank.encoder_momentum (got 0.99); bank.candidates recent keeps the network's own vectors",
            ),
            (
                ["bank.warmup=9", "bank.candidates=recent"],
                "bank.warmup (got 9); bank.candidates recent keeps the last steps as they are: set it to 0",
            ),
            (["bank.max_age=9", "bank.candidates=recent"], "(got 9); bank.candidates recent keeps"),
            (["bank.own_images=true", "bank.candidates=recent"], "are: set it to false"),
            (
                ["bank.own_images=true", "relations.cooccurrence.own_image=false"],
                "bank.own_images (got true); relations.cooccurrence.own_image false leaves the own image out",
            ),
            (["bank.gpu_index=true", "engine.device=cpu"], "no GPU searches: set it to false"),
            (["bank.gpu_index=true", "bank.candidates=exact"], "no inverted file: set it to false"),
            (["bank.storage=float16", "bank.candidates=recent"], "are: set it to float32"),
            (
                ["bank.encoder_momentum=0.99", "engine.zero_stage=3"],
                "bank.encoder_momentum (got 0.99); engine.zero_stage 3",
            ),
            (
                ["engine.compile=true", "engine.zero_stage=3"],
                "engine.compile (got true); engine.zero_stage 3",
            ),
        ],
    )
    def test_values_that_do_not_go_together_are_refused(self, overrides: list[str], part: str):
        assert part in mistake(SMALL, *overrides)

    def test_the_pyramid_head_and_the_backbone_s_own_stride_can_be_had(self):
        overrides = ["model.head=pspnet", "model.dilations=[]", "model.output_stride=null"]
        model = load(SMALL, overrides).model
        assert (model.head, model.dilations, model.output_stride) == ("pspnet", (), None)

    def test_the_step_policy_can_be_had(self):
        overrides = ["schedule.policy=step", "schedule.power=null", "schedule.decays=[100, 200]"]
        assert load(SMALL, overrides).schedule.decays == (100, 200)

    def test_a_bank_of_the_last_steps_has_no_capacity_to_outgrow(self):
        assert load(SMALL, ["bank.candidates=recent", "bank.capacity=1"]).bank.capacity == 1

    @pytest.mark.parametrize(
        "overrides",
        [
            ["bank.capacity=288", "bank.partitions=2"],
            ["bank.capacity=2304", "bank.partitions=64"],
            ["bank.partitions=2"],
            ["bank.warmup=399"],
        ],
    )
    def test_a_bank_just_large_enough_can_be_had(self, overrides: list[str]):
        assert load(SMALL, overrides).bank.candidates == "nearest+sampled"

    @pytest.mark.parametrize("candidates", ["nearest+sampled", "nearest", "exact"])
    def test_affinity_over_the_bank_and_a_momentum_encoder_can_be_had(self, candidates: str):
        overrides = [f"bank.candidates={candidates}", "bank.encoder_momentum=0.99", "engine.zero_stage=2"]
        config = load(SMALL, [*GLOBAL_AFFINITY, *overrides])
        assert config.relations.feature_affinity.scope == "global"
        assert config.bank.encoder_momentum == 0.99

    def test_a_scope_that_no_relation_uses_needs_no_bank(self):
        unused = ["relations.feature_affinity.scope=global", "bank.candidates=recent"]
        assert load(SMALL, unused).relations.feature_affinity.weight == 0

    def test_one_positive_term_is_enough(self):
        weights = [
            f"relations.{name}.weight=0" for name in ("image_similarity", "annotation", "cooccurrence")
        ]
        assert load(SMALL, weights).loss.cross_entropy == 1.0


@st.composite
def typos(draw) -> tuple[str, str]:
    """A valid dotted key, and the same with one letter of its last part changed, lost, added or swapped."""
    key = draw(st.sampled_from(list(fields())))
    section, dot, name = key.rpartition(".")
    place = draw(st.integers(0, len(name) - 1))
    letter = draw(st.sampled_from(string.ascii_lowercase + "_"))
    edited = draw(
        st.sampled_from(
            [
                name[:place] + letter + name[place + 1 :],
                name[:place] + name[place + 1 :],
                name[:place] + letter + name[place:],
                name[:place] + name[place : place + 2][::-1] + name[place + 2 :],
            ]
        )
    )
    assume(edited and section + dot + edited not in fields())
    return key, section + dot + edited


@settings(deadline=None)
@given(typos())
def test_any_typo_in_an_override_is_named_with_a_valid_key(pair: tuple[str, str]):
    _, typo = pair
    message = mistake(SMALL, f"{typo}=1")
    assert message.startswith(f"{typo} on the command line is not a configuration key (got 1); did you mean ")
    suggestions = message.partition("did you mean ")[2].rstrip("?").split(" or ")
    assert set(suggestions) <= set(fields())


@settings(deadline=None)
@given(typos())
def test_any_typo_in_a_file_is_named_and_leads_to_the_key_that_is_lacking(
    tmp_path_factory, pair: tuple[str, str]
):
    key, typo = pair
    path = tmp_path_factory.mktemp("typo") / "x.yaml"
    path.write_text(TEXT)
    line = next(
        int(origin.rsplit(":", 1)[1])
        for k, origin in explain(path)[1].items()
        if k == key or k.startswith(f"{key}.")
    )
    lines = TEXT.splitlines()
    name = key.rpartition(".")[2]
    line -= 1
    while not re.search(rf"\b{name}:", lines[line]):
        line -= 1
    lines[line] = re.sub(rf"\b{name}:", f"{typo.rpartition('.')[2]}:", lines[line], count=1)
    path.write_text("\n".join(lines))
    message = mistake(path)
    assert message.startswith(f"{typo} at {path}:")
    assert f"did you mean {key}?" in message


def test_a_sections_override_is_one_of_each_of_its_keys():
    given = ["optimizer={lr: 0.01, clip_norm: null}", "name=a", "segments.grid=[8, 8]"]
    keys = ["optimizer.lr=0.01", "optimizer.clip_norm=null", "name=a", "segments.grid=[8, 8]"]
    assert expanded(given) == keys
    unreadable = ["data={val: [}", "optimizer={lr: .inf}", "data={val: 2024-01-01x}", "stream={}", "name"]
    assert expanded(unreadable)[:2] == unreadable[:2] and expanded(unreadable)[3:] == unreadable[3:]


def test_overrides_in_one_text_are_named(write):
    with pytest.raises(ConfigError, match=r"give a list: \['schedule.steps=3'\]"):
        load(write("name: mine\n"), "schedule.steps=3")
