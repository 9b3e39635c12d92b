"""One self-contained page, from whatever a run has left so far."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from spml_dist.drawing.overlay import write_picture
from spml_dist.errors import RunError
from spml_dist.report import curves, write_report
from spml_dist.report.charts import confusion_figure, draw, picture, svg
from spml_dist.report.contents import read
from spml_dist.report.summary import summary

CONFIG = "name: beach\nseed: 7\nmodel:\n  backbone: resnet10t\nschedule:\n  steps: 30\n"


def logged(step: int) -> dict:
    return {
        "step": step,
        "timestamp": 1_700_000_000_000 + 60_000 * step,
        "loss": 3 / step,
        "loss/annotation": 2 / step,
        "loss/cross_entropy": 1 / step,
        "lr": 0.1,
        "images_per_s": 10 + step,
        "time/forward": 0.2,
        "time/backward": 0.3,
        "memory_mb": 2048,
        "pixels": 200.0,
        "pixels_without_positive": 3.0,
        "without_positive/annotation": 3.0,
        "candidates": 9,
        "bank/rows": 4,
        "eta_s": None,
    }


def busy(step: int) -> dict:
    usage = {"cpu_utilization_percentage": 50.0, "system_memory_usage_percentage": 30.0}
    return {"step": step, "timestamp": 1_700_000_000_000 + 30_000 * step, "host": "a"} | usage


def result(split: str = "val", oracle: bool = False) -> dict:
    name = "neighbours_oracle" if oracle else "neighbours"
    values = {"miou": 0.25, "pixel_accuracy": 0.75, "iou": {"sea & <sand>": 0.5, "rock": 0.0}}
    return {
        "split": split,
        "images": 12,
        "seed": 7,
        "oracle": oracle,
        "miou": 0.25,
        "readouts": {"classifier": values, name: values | {"prototypes": 321, "precision": 0.5}},
        "classes": ["sea & <sand>", "rock"],
        "classes_present": ["sea & <sand>"],
        "background": None,
        "confusion": {"classifier": [[9, 0], [0, 0]], name: [[8, 1], [0, 0]]},
    }


LABELS = {
    "name": "beach-train",
    "split": "train",
    "labels": "points,tags",
    "classes": ["sea & <sand>", "rock"],
    "background": None,
    "samples": 8,
    "counts": {
        "images_labelled": 2,
        "images_unlabelled": 6,
        "images_tags_unknown": 1,
        "pixels": 1000,
        "pixels_labelled": [30, 10],
        "images_tagged": [1234, 5],
        "kinds": {"points": 2, "tags": 7},
    },
    "hints": ["No image carries the tag of <rock>."],
}


@pytest.fixture
def finished(tmp_path):
    """A run folder with everything that a report shows."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(logged(step)) + "\n" for step in range(1, 31)))
    (tmp_path / "result.json").write_text(json.dumps(result()))
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    (tmp_path / "result_val_oracle.json").write_text(json.dumps(result(oracle=True)))
    previews = [f"previews/step_{step:06d}" for step in (2, 5, 10, 15, 20, 25, 30)]
    for name in ("pictures/val", *previews):
        write_picture(tmp_path / f"{name}.png", np.full((8, 8, 3), 200, np.uint8))
    (tmp_path / "system").mkdir()
    for node in (0, 1):
        (tmp_path / "system" / f"node_{node}.jsonl").write_text(
            json.dumps(busy(1)) + "\n" + json.dumps(busy(2))
        )
    return tmp_path


class Page(HTMLParser):
    """What a page refers to, and whether its tags are closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.references, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.references += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.references += [value for name, value in attributes if name in ("src", "href", "xlink:href")]


def test_the_page_refers_to_nothing_outside_itself(finished):
    text = write_report(finished).read_text()
    page = Page(text)
    assert page.open == []
    assert len(page.references) > 5
    assert all(reference.startswith(("data:image/", "#")) for reference in page.references)
    assert not re.search(r"@import|url\((?!#)", text)


def test_the_page_shows_results_images_curves_and_settings(finished):
    text = write_report(finished).read_text()
    for shown in (
        "beach",
        "resnet10t",
        "25.0 %",
        "sea &amp; &lt;sand&gt;",
        "Loss: annotation",
        "321",
        "Machines",
    ):
        assert shown in text
    assert "<sand>" not in text
    assert text.count("data:image/webp") == 1 + 4
    assert "rock (not shown)" in text
    assert re.search(r"mean IoU</td><td[^>]*><div><span[^>]*>25\.0<", text)
    assert re.search(r"mean of shown classes</td><td[^>]*><div><span[^>]*>50\.0<", text)


def test_previews_shown_are_spread_over_the_training(finished):
    text = write_report(finished).read_text()
    assert re.findall(r"<figcaption>step (\d+)", text) == ["2", "10", "20", "30"]


def test_a_large_preview_is_embedded_no_wider_than_it_is_shown(finished):
    noise = np.random.default_rng(0).integers(0, 256, (300, 4000, 3), np.uint8)
    write_picture(finished / "previews" / "step_000002.png", noise)
    small = write_report(finished).stat().st_size
    assert small < (finished / "previews" / "step_000002.png").stat().st_size / 3


def test_progress_and_time_of_an_unfinished_training_are_told(finished):
    (finished / "metrics.jsonl").write_text("".join(json.dumps(logged(step)) + "\n" for step in (1, 2)))
    text = write_report(finished).read_text()
    assert "<b>2</b><span>of 30 steps trained</span>" in text
    assert "logged 2023-11-14 22:14 to 22:15 UTC" in text


def test_ground_truth_prototypes_are_called_oracle(finished):
    text = write_report(finished).read_text()
    assert text.index("Result on val</h2>") < text.index("Result on val (oracle)</h2>")
    assert "neighbours (oracle)" in text
    assert "labelled with ground truth" in text


def test_the_workers_are_those_that_trained_whatever_the_file_says(finished):
    steps = [logged(step) | {"workers": 2 if 10 < step < 20 else 1} for step in range(1, 31)]
    (finished / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    assert summary(read(finished))["settings"]["workers"] == "1, then 2, then 1"


def test_the_labels_learned_from_are_shown_by_kind_and_by_class_with_hints(finished):
    text = write_report(finished).read_text()
    section = text.partition("<h2>Labels</h2>")[2].partition("<h2>")[0]
    assert "<li>No image carries the tag of &lt;rock&gt;.</li>" in section
    for row in (
        r"with tags</td><td>7</td>.*?>87\.5<",
        r"without labelled pixels</td><td>6</td>.*?>75\.0<",
        r"sea &amp; &lt;sand&gt;</td><td>1,234</td><td>30</td>.*?width:75\.0%",
        r"4\.00 % of all pixels",
    ):
        assert re.search(row, section)


def test_images_whose_tags_and_pixels_do_not_say_the_same_are_named(finished):
    counts = LABELS["counts"] | {
        "images_unseen": [9, 0],
        "named_unseen": [["<a>", "b"], []],
        "images_unlisted": [0, 1],
        "named_unlisted": [[], ["c"]],
    }
    for pixels, promised in (([30, 10], True), ([0, 0], False)):
        counts["pixels_labelled"] = pixels
        (finished / "labels.json").write_text(json.dumps(LABELS | {"counts": counts}))
        section = write_report(finished).read_text().partition("Images to look at")[2].partition("<h2>")[0]
        assert ("no pixel labelled</td><td>9</td><td>&lt;a&gt;, b, …</td>" in section) is promised
        assert "not among the tags</td><td>1</td><td>c</td>" in section


def test_labels_that_lack_nothing_have_no_hints(finished):
    (finished / "labels.json").write_text(json.dumps(LABELS | {"hints": []}))
    text = write_report(finished).read_text()
    assert "<li>" not in text and "Every class has labelled pixels" in text and "to look at" not in text


@pytest.mark.parametrize(
    ("network", "pixels", "tagged", "message"),
    [
        ("segmenter", [30, 0], [3, 3], "Classes without labelled pixels: &lt;rock&gt;."),
        ("segmenter", [0, 3], [3, 3], "Classes without labelled pixels: sea."),
        ("cam", [0, 0], [0, 3], "Every class has tags, and nothing contradicts."),
        ("cam", [30, 3], [0, 0], "Classes without tags: &lt;rock&gt;."),
    ],
)
def test_nothing_is_lacking_only_where_every_class_has_what_the_run_learns_from(
    finished, network, pixels, tagged, message
):
    counts = LABELS["counts"] | {"pixels_labelled": pixels, "images_tagged": tagged}
    note = {"classes": ["sea", "<rock>"], "background": 0, "network": network, "counts": counts, "hints": []}
    (finished / "labels.json").write_text(json.dumps(LABELS | note))
    text = write_report(finished).read_text()
    assert message in text and ("Every class has" in text) is message.startswith("Every")


def test_an_untrained_run_has_a_page_that_says_how_to_go_on(tmp_path):
    text = write_report(tmp_path).read_text()
    assert tmp_path.name in text
    assert f"spml-dist evaluate {tmp_path} --split val" in text
    assert "Training</h2>" not in text and "Labels</h2>" not in text


def test_a_log_that_is_being_written_or_lacks_keys_is_read_as_far_as_it_goes(finished):
    lines = ["not json", '{"step": 1, "loss": 2.0}', '{"loss": 4}', '{"step": 2, "loss": NaN}']
    (finished / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 3, "lo']))
    text = write_report(finished).read_text()
    assert "<h3>Loss</h3>" in text
    assert "<h3>Learning rate</h3>" not in text


def test_the_same_folder_gives_the_same_page(finished):
    first = write_report(finished).read_bytes()
    assert write_report(finished).read_bytes() == first
    assert not list(finished.glob("*.tmp"))


def titles(found: list[curves.Curves]) -> dict[str, dict[str, np.ndarray]]:
    return {each.title: each.series for each in found}


def test_every_number_of_the_log_has_its_chart():
    found = titles(curves.of_training([logged(step) for step in range(1, 200)]))
    assert list(found) == [
        "Loss",
        "Loss: annotation",
        "Loss: cross entropy",
        "Learning rate",
        "Pixels without a positive, %",
        "Seconds a step, by phase",
        "Images a second",
        "Memory of rank 0, GB",
        "Candidates of a step, and rows of the bank",
    ]
    assert found["Loss: annotation"]["annotation"][:2].tolist() == [[1, 2], [2, 1]]
    assert set(found["Pixels without a positive, %"]["annotation"][:, 1]) == {1.5}
    assert set(found["Memory of rank 0, GB"]["memory"][:, 1]) == {2}
    assert list(found["Candidates of a step, and rows of the bank"]) == ["candidates", "rows of the bank"]


def test_relations_and_numbers_that_nobody_has_heard_of_are_drawn_too():
    row = {"step": 1, "loss/feature_affinity": 2.0, "gradient_norm": 1.0, "disk/read": 3.0, "disk/wrote": 0.1}
    found = titles(curves.of_training([row]))
    assert set(found) == {"Loss: feature affinity", "Gradient norm", "Disk"}
    assert set(found["Disk"]) == {"read", "wrote"}


def test_the_bank_has_a_chart_for_each_of_its_questions():
    row = {
        "step": 1,
        "bank/age_mean": 30.0,
        "bank/age_share/below_10": 0.25,
        "bank/age_share/older": 0.75,
        "bank/drift_cosine": 0.9,
        "bank/purity": 0.5,
        "bank/recall/shares_tag": 0.99,
        "bank/coverage_annotation/step": 0.5,
        "bank/coverage_annotation/bank": 1.0,
        "bank/coverage_cooccurrence/recent": 0.8,
    }
    found = titles(curves.of_training([row]))
    assert list(found) == [
        "Age of the bank's rows, mean in steps",
        "Cosine of replaced segments with the new ones",
        "Annotated neighbours of the same class, %",
        "Rows of the bank by age in steps, %",
        "Recall of the inverted file, %",
        "Segments with a positive and a negative by annotation, %",
        "Segments with a positive and a negative by co-occurrence, %",
    ]
    assert found["Rows of the bank by age in steps, %"]["older"].tolist() == [[1, 75]]
    annotation = found["Segments with a positive and a negative by annotation, %"]
    assert {name: points[0, 1] for name, points in annotation.items()} == {"step": 50, "bank": 100}


def test_phases_stand_in_the_order_of_a_step_without_the_first_one_and_small_ones_together():
    times = {"time/backward": 1.0, "time/data": 0.5, "time/bank": 0.001, "time/preview": 0.2}
    rows = [{"step": 1, "time/data": 60.0}, *({"step": step} | times for step in (10, 20))]
    rows[1].pop("time/preview")
    (each,) = curves.of_training(rows)
    assert each.stacked and list(each.series) == ["data", "backward", "other"]
    np.testing.assert_allclose(each.series["other"], [[10, 0.001], [20, 0.201]])
    np.testing.assert_allclose(each.series["data"], [[10, 0.5], [20, 0.5]])


def test_one_logged_step_is_enough_for_a_chart():
    assert [each.title for each in curves.of_training([{"step": 1, "loss": 1.0}])] == ["Loss"]
    assert curves.of_training([]) == []


def test_machines_are_drawn_over_common_minutes_and_gpus_as_their_mean():
    gpus = {"gpu_0_utilization_percentage": 20.0, "gpu_1_utilization_percentage": 40.0}
    found = titles(curves.of_machines({"node_0": [busy(1) | gpus, busy(3) | gpus], "node_1": [busy(2)]}))
    assert {node: points.tolist() for node, points in found["CPU, %"].items()} == {
        "node 0": [[0, 50], [1, 50]],
        "node 1": [[0.5, 50]],
    }
    assert found["GPUs, mean %"]["node 0"].tolist() == [[0, 30], [1, 30]]
    assert list(found["GPUs, mean %"]) == ["node 0"]
    assert set(titles(curves.of_machines({"node_0": [busy(1)]}))) == {"CPU, %", "Memory of the machine, %"}


def test_a_drawing_takes_its_ink_from_the_page_and_stays_light_however_long_the_log():
    rows = [logged(step) for step in range(1, 20_000)]
    for each in curves.of_training(rows):
        svg = draw(each)
        assert svg.startswith("<svg") and "currentColor" in svg
        assert not re.match(r'<svg[^>]* width="[\d.]+pt"', svg)
        assert len(svg) < 120_000, each.title


def test_the_same_relation_has_the_same_colour_in_all_charts():
    row = {"step": 1, "loss/annotation": 1.0, "loss/zebra": 1.0, "pixels": 9}
    row |= {"without_positive/annotation": 1, "without_positive/zebra": 2}
    one, _, shares = curves.of_training([row, row | {"step": 2}])
    colour = re.search(r"stroke: (#\w{6}); stroke-width: 1.6", draw(one))[1]
    assert colour in draw(shares)


def test_a_confusion_is_in_per_cent_of_the_true_class_with_text_as_text():
    drawn = svg(confusion_figure([[1, 3], [0, 8]], ["a<b", "c"], "neighbours"))
    assert "currentColor" in drawn and "a&lt;b" in drawn and "a<b" not in drawn
    assert [value for value in re.findall(r">(\d+)</text>", drawn)] == ["25", "75", "100"]
    assert drawn.count("opacity: 0.75") == 1


def test_a_class_without_pixels_has_an_empty_row():
    assert re.findall(r">(\d+)</text>", svg(confusion_figure([[0, 0], [0, 1]], ["a", "b"], "x"))) == ["100"]


def test_a_confusion_of_many_classes_stays_light():
    many = np.eye(150) + 0.001
    assert len(svg(confusion_figure(many, [str(n) for n in range(150)], "classifier"))) < 400_000


def test_names_with_markup_in_them_are_text(finished):
    evil = "<script>alert(1)</script>"
    found = json.loads(json.dumps(result()).replace("rock", evil))
    (finished / "result.json").write_text(json.dumps(found))
    (finished / "labels.json").write_text(json.dumps(LABELS | {"classes": [evil, "&amp;"], "name": evil}))
    (finished / "config.yaml").write_text(CONFIG.replace("beach", f"'{evil}'"))
    text = write_report(finished).read_text()
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text and "&amp;amp;" in text


def test_the_summary_holds_what_the_page_shows(finished):
    outcome = json.loads(json.dumps(summary(read(finished))))
    assert outcome["run"] == "beach" and outcome["settings"]["backbone"] == "resnet10t"
    assert outcome["headline"]["mIoU, classifier, val"] == "25.0 %"
    charts = {each["title"]: each for each in outcome["charts"]}
    assert charts["Loss"]["series"]["total"][0] == [1, 3] and charts["Loss"]["across"] == "step"
    assert {each["title"] for each in outcome["machines"]} == {"CPU, %", "Memory of the machine, %"}
    assert outcome["labels"]["counts"]["kinds"] == {"points": 2, "tags": 7}
    assert outcome["results"][0]["readouts"]["classifier"]["iou"]["rock"] == 0
    text = write_report(finished).read_text()
    assert all(title in text for title in charts)
    assert all(value in text for value in outcome["headline"].values())


@pytest.mark.parametrize(
    ("name", "content"), [("result.json", '{"split"'), ("config.yaml", "a: ["), ("labels.json", "{")]
)
def test_a_damaged_file_is_named(finished, name, content):
    (finished / name).write_text(content)
    with pytest.raises(RunError, match=rf"{name} cannot be read .*; restore it"):
        write_report(finished)


def test_a_result_that_is_none_is_named_and_other_files_are_somebody_s_own(finished):
    (finished / "results_mine.json").write_text("[1]")
    write_report(finished)
    (finished / "result_mine.json").write_text("{}")
    with pytest.raises(RunError, match=r"result_mine.json is no result of `spml-dist evaluate`"):
        write_report(finished)
    (finished / "result_mine.json").write_bytes(b"\xff")
    with pytest.raises(RunError, match=r"result_mine.json cannot be read"):
        write_report(finished)


def test_a_sheet_that_is_higher_than_a_page_s_images_can_be_is_shown_smaller(finished):
    write_picture(finished / "previews" / "step_000002.png", np.zeros((20_000, 40, 3), np.uint8))
    sides = [picture.shape[0] for picture in _embedded(write_report(finished))]
    assert max(sides) == 16383


def _embedded(page: Path) -> list[np.ndarray]:
    codes = re.findall(r"data:image/webp;base64,([^\"']+)", page.read_text())
    return [cv2.imdecode(np.frombuffer(base64.b64decode(code), np.uint8), 1) for code in codes]


def test_a_damaged_preview_is_named(finished):
    (finished / "previews" / "step_000002.png").write_bytes(b"")
    with pytest.raises(RunError, match=r"step_000002.png is not an image"):
        write_report(finished)


def test_a_confusion_picture_is_darkest_on_the_classes_that_are_found():
    wrong = picture(confusion_figure([[0, 5], [5, 0]], ["a", "b"], "Classifier")).astype(int)
    right = picture(confusion_figure([[5, 0], [0, 5]], ["a", "b"], "Classifier")).astype(int)
    assert wrong.shape == right.shape
    upper_left = tuple(slice(side // 3, side // 2) for side in right.shape[:2])
    assert right[upper_left].mean() < wrong[upper_left].mean()


REFINEMENT = {
    "classes": ["sea & <sand>", "rock"],
    "background": None,
    "stages": [
        {
            **{"stage": "embedding", "readout": "classifier", "split": "val", "images": 12},
            **{"miou": 0.25, "boundary_miou": 0.125},
        },
        {
            "stage": "walk",
            "readout": "labels",
            "split": "train",
            "images": 1234,
            "miou": 0.5,
            "classes": {
                "sea & <sand>": {"precision": 0.625, "recall": 0.875, "iou": 0.5},
                "rock": {"precision": None, "recall": None, "iou": None},
            },
        },
    ],
}


def test_what_each_stage_of_a_refinement_came_to_is_shown_as_a_table_and_as_bars(finished):
    assert "What each stage came to" not in write_report(finished).read_text()
    (finished / "refinement.json").write_text(json.dumps(REFINEMENT))
    text = write_report(finished).read_text()
    assert Page(text).open == []
    assert re.search(
        r"<td>walk</td><td>labels</td><td>train</td><td>1,234</td><td[^>]*><div><span[^>]*>50\.0<", text
    )
    assert ">12.5<" in text, "the boundary IoU of what was read out; labels and earlier releases have none"
    assert "precision, walk" in text and ">62.5<" in text and ">87.5<" in text
    assert "<td>–</td><td>–</td>" in text, "of a class that nothing tells of"
    picture = text[text.index("What each stage came to") :]
    assert "embedding, classifier" in picture[: picture.index("</svg>")]
    assert summary(read(finished))["refinement"] == REFINEMENT
