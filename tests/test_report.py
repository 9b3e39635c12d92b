"""One self-contained page, from whatever a run has left so far."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from spml_dist.pictures import write_png
from spml_dist.report import write_report
from spml_dist.report.charts import confusion_picture, curves

CONFIG = "name: beach\nseed: 7\nmodel:\n  backbone: resnet10t\nschedule:\n  steps: 30\n"


def logged(step: int) -> dict:
    return {
        "step": step,
        "loss": 3 / step,
        "loss/annotation": 2 / step,
        "loss/cross_entropy": 1 / step,
        "lr": 0.1,
        "images_per_s": 10 + step,
        "time/forward": 0.2,
        "time/backward": 0.3,
        "memory_mb": 700,
        "pixels_without_positive": 3,
    }


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


@pytest.fixture
def finished(tmp_path):
    """A run folder with everything that a report shows."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(logged(step)) + "\n" for step in range(1, 31)))
    (tmp_path / "result.json").write_text(json.dumps(result()))
    (tmp_path / "result_val_oracle.json").write_text(json.dumps(result(oracle=True)))
    previews = [f"previews/step_{step:06d}" for step in (2, 10, 20, 30)]
    for name in ("pictures/val", "pictures/confusion_val", *previews):
        write_png(tmp_path / f"{name}.png", np.full((8, 8, 3), 200, np.uint8))
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


def test_the_page_shows_results_pictures_curves_and_settings(finished):
    text = write_report(finished).read_text()
    for shown in ("beach", "resnet10t", "25.0 %", "sea &amp; &lt;sand&gt;", "Loss by term", "321"):
        assert shown in text
    assert "<sand>" not in text
    assert text.count("data:image/webp") == 5
    assert "rock (not in this split)" in text


def test_previews_shown_are_the_first_a_middle_one_and_the_last(finished):
    text = write_report(finished).read_text()
    assert re.findall(r"<figcaption>step (\d+)", text) == ["000002", "000010", "000030"]


def test_ground_truth_prototypes_are_called_oracle(finished):
    text = write_report(finished).read_text()
    assert text.index("Result on val</h2>") < text.index("Result on val (oracle)</h2>")
    assert "neighbours (oracle)" in text
    assert "labelled with ground truth" in text


def test_an_untrained_run_has_a_page_that_says_how_to_go_on(tmp_path):
    text = write_report(tmp_path).read_text()
    assert tmp_path.name in text
    assert f"spml-dist evaluate {tmp_path} --split val" in text
    assert "Training</h2>" not in text


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


def test_charts_take_their_ink_from_the_page():
    drawn = dict(curves([logged(step) for step in range(1, 200)]))
    assert set(drawn) == {
        "Loss",
        "Loss by term",
        "Learning rate",
        "Pixels without a positive",
        "Images a second",
        "Seconds a step, by phase",
        "Memory, MB",
    }
    for svg in drawn.values():
        assert "currentColor" in svg
        assert svg.startswith("<svg")
        assert not re.match(r'<svg[^>]* width="[\d.]+pt"', svg)


def test_one_logged_step_is_enough_for_a_chart():
    assert [title for title, _ in curves([{"step": 1, "loss": 1.0}])] == ["Loss"]
    assert curves([]) == []


def test_a_confusion_picture_is_darkest_on_the_classes_that_are_found():
    wrong = confusion_picture([[0, 5], [5, 0]], ["a", "b"], "Classifier").astype(int)
    right = confusion_picture([[5, 0], [0, 5]], ["a", "b"], "Classifier").astype(int)
    assert wrong.shape == right.shape
    upper_left = tuple(slice(side // 3, side // 2) for side in right.shape[:2])
    assert right[upper_left].mean() < wrong[upper_left].mean()
