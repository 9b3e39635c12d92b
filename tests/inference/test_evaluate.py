"""Both read-outs of a network that can be read out perfectly."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from spml_dist import cluster
from spml_dist.errors import ConfigError, DataError
from spml_dist.inference import metrics, whole_image
from spml_dist.inference.evaluate import EvaluateHow, collect, evaluate_model
from spml_dist.inference.pixel_labels import label
from spml_dist.inference.views import Views
from spml_dist.records import UNLABELLED
from tests.inference.conftest import CLASSES, stripes, with_crf

INFO = {"classes": list(CLASSES), "background": None}


@pytest.fixture
def measure(network, settings):
    def run(evaluated, train, **options):
        return evaluate_model(network, INFO, evaluated, train, settings, progress=False, **options)

    return run


def with_labels(sample, change):
    """The sample with its weak labels changed and its ground truth left alone."""
    labelled = sample.semantic < UNLABELLED
    semantic = np.where(labelled, change(sample.semantic), sample.semantic)
    return replace(sample, semantic=semantic.astype(np.uint8))


def test_both_readouts_find_the_colours(packed, measure):
    train = packed("train", map(stripes, range(3)))
    val = packed("val", [stripes(4), stripes(5, height=70, width=40)])
    result = measure(val, train, split="val", seed=7)
    assert result["images"] == 2
    assert (result["split"], result["seed"], result["oracle"]) == ("val", 7, False)
    assert result["classes_present"] == list(CLASSES)
    assert set(result["readouts"]) == {"classifier", "neighbours"}
    for readout in result["readouts"].values():
        assert readout["miou"] > 0.8
        assert readout["miou"] == pytest.approx(np.mean(list(readout["iou"].values())))
    assert result["readouts"]["neighbours"]["precision"] > 0.8
    assert result["miou"] == result["readouts"]["classifier"]["miou"]
    assert json.loads(json.dumps(result)) == result


def test_counts_are_taken_over_the_whole_split(packed, measure):
    train = packed("train", map(stripes, range(2)))
    val = packed("val", [stripes(4), stripes(5, height=70, width=40), stripes(0, height=20, width=100)])
    seen = []
    result = measure(val, train, each=seen.append)
    assert [image.number for image in seen] == [0, 1, 2]
    for name, readout in result["readouts"].items():
        truth = np.concatenate([image.sample.mask.ravel() for image in seen])
        painted = np.concatenate([image.predictions[name].ravel() for image in seen])
        counts = metrics.confusion(truth, painted, len(CLASSES))
        assert result["confusion"][name] == counts[:, : len(CLASSES)].tolist()
        assert readout["miou"] == metrics.miou(counts)


def test_neighbours_know_weak_labels_only_and_the_oracle_is_named(packed, measure):
    """Weak labels that lie mislead the neighbours; ground truth is used only by the oracle, which says so."""
    lie = [with_labels(stripes(number), lambda label: (label + 1) % 3) for number in range(2)]
    train = packed("train", lie)
    val = packed("val", [stripes(3)])
    misled = measure(val, train)
    assert misled["readouts"]["neighbours"]["miou"] < 0.1
    assert misled["readouts"]["classifier"]["miou"] > 0.8

    oracle = measure(val, train, oracle=True)
    assert oracle["oracle"] is True
    assert set(oracle["readouts"]) == set(oracle["confusion"]) == {"classifier", "neighbours_oracle"}
    assert oracle["readouts"]["neighbours_oracle"]["miou"] > 0.8


def test_a_segment_takes_the_majority_of_its_labelled_pixels_however_few(network, settings, packed):
    sparse = stripes(0)
    semantic = np.full_like(sparse.semantic, UNLABELLED)
    semantic[::8, ::8] = sparse.mask[::8, ::8]
    half = packed("half", [replace(sparse, semantic=semantic)])
    full = packed("full", [replace(sparse, semantic=sparse.mask)])
    few = collect(network, 3, half, settings, progress=False)
    all_of_them = collect(network, 3, full, settings, progress=False)
    rows = {row.tobytes(): label for row, label in zip(all_of_them.prototype, all_of_them.label, strict=True)}
    assert 0 < len(few.label) <= len(all_of_them.label)
    agree = [rows[row.tobytes()] == label for row, label in zip(few.prototype, few.label, strict=True)]
    assert np.mean(agree) > 0.8


def test_segments_without_a_labelled_pixel_are_left_out(network, settings, packed):
    sample = stripes(0)
    semantic = np.where(np.arange(61)[None] < 20, sample.semantic, UNLABELLED).astype(np.uint8)
    train = packed("train", [replace(sample, semantic=semantic)])
    gallery = collect(network, 3, train, settings, progress=False)
    assert set(gallery.label.tolist()) == {0}
    np.testing.assert_allclose(np.linalg.norm(gallery.prototype, axis=1), 1, rtol=1e-5)


def test_the_same_evaluation_gives_the_same_numbers(packed, measure):
    train, val = packed("train", map(stripes, range(3))), packed("val", [stripes(4)])
    assert measure(val, train) == measure(val, train)


def test_images_without_ground_truth_are_refused_and_counted(packed, measure):
    train = packed("train", [stripes(0)])
    val = packed("val", [stripes(1), replace(stripes(2), mask=None), replace(stripes(3), mask=None)])
    keys = f"{stripes(2).key}, {stripes(3).key}"
    message = rf"val: images without ground truth \(got 2 of 3: {keys}\); .*masks"
    with pytest.raises(DataError, match=message):
        measure(val, train)


def test_other_classes_than_the_models_are_refused(packed, measure):
    val = packed("val", [stripes(0)], classes=("red", "green", "violet"))
    with pytest.raises(DataError, match=r"val: classes differ .*violet.*trained for red, green, blue"):
        measure(val, packed("train", [stripes(0)]))


def test_a_training_split_without_labels_is_refused(packed, measure):
    train = packed("train", [replace(stripes(0), semantic=np.full((45, 61), UNLABELLED, np.uint8))])
    with pytest.raises(DataError, match="train: no segment holds a labelled pixel"):
        measure(packed("val", [stripes(1)]), train)


def test_ground_truth_that_is_ignored_everywhere_measures_nothing(packed, measure):
    ignored = replace(stripes(4), mask=np.full_like(stripes(4).mask, 255))
    with pytest.raises(DataError, match=r"no pixel of its masks has a class .*255 is ignored"):
        measure(packed("val", [ignored]), packed("train", [stripes(0)]))


@with_crf
def test_several_looks_are_averaged_and_named(packed, measure, network):
    """The classifier's labels are those of `label`, whose views are tried elsewhere."""
    train, val = packed("train", map(stripes, range(2))), packed("val", [stripes(4)])
    for how in (
        EvaluateHow(scales=(0.5, 1.0), mirror=True),
        EvaluateHow(("classifier",), window=32, crf=True),
    ):
        seen = []
        result = measure(val, train, how=how, each=seen.append)
        views = Views(how.scales, how.mirror, how.window)
        (labels,) = label(network, [seen[0].sample.image], views, refine=how.crf)
        assert (seen[0].predictions["classifier"] == labels.classes).mean() > 0.999
        assert all(readout["miou"] > 0.8 for readout in result["readouts"].values())
        assert result["ways"] == list(how.ways) and list(result["readouts"]) == list(how.readouts)
    assert EvaluateHow().ways == ()
    assert EvaluateHow(("neighbours",), mirror=True).ways == ("neighbours", "mirror")


def test_one_read_out_alone_needs_no_other(packed, measure):
    val = packed("val", [stripes(4)])
    alone = measure(val, "nowhere", how=EvaluateHow(("classifier",)))
    both = measure(val, packed("train", [stripes(0)]))
    assert alone["readouts"]["classifier"] == both["readouts"]["classifier"]
    with pytest.raises(ConfigError, match="oracle labels neighbours"):
        measure(val, "nowhere", how=EvaluateHow(("classifier",), oracle=True))


def test_windows_for_the_classifier_alone_need_no_look_at_the_whole_image(packed, measure, monkeypatch):
    monkeypatch.setattr(whole_image, "embed", None)
    result = measure(packed("val", [stripes(4)]), "nowhere", how=EvaluateHow(("classifier",), window=32))
    assert result["readouts"]["classifier"]["miou"] > 0.8


def test_the_counts_are_the_same_for_any_number_of_workers(packed, measure, monkeypatch):
    """Workers get their function through a pipe and finish in any order."""
    train = packed("train", map(stripes, range(6)))
    val = packed("val", [stripes(number, width=40 + number) for number in range(9)])
    alone, shown = measure(val, train), []

    def backwards(function, items, workers):
        for item in reversed(list(items)):
            yield pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(function))(item)))

    monkeypatch.setattr(cluster, "spread", backwards)
    assert measure(val, train, how=EvaluateHow(workers=2), each=shown.append) == alone
    assert [image.number for image in shown] == list(range(9))


def test_each_class_has_precision_recall_and_boundaries(packed, measure):
    val = packed("val", [stripes(4), stripes(5)])
    result = measure(val, packed("train", [stripes(0)]))
    counts = np.array(result["confusion"]["classifier"])
    readout = result["readouts"]["classifier"]
    for number, name in enumerate(CLASSES):
        assert readout["pixel_precision"][name] == counts[number, number] / counts[:, number].sum()
        assert readout["pixel_recall"][name] == counts[number, number] / counts[number].sum()
    assert readout["boundary_miou"] == pytest.approx(np.mean(list(readout["boundary_iou"].values())))
    assert 0 < readout["boundary_miou"] < readout["miou"]


def test_the_best_and_the_worst_images_are_named(packed, measure):
    lie = replace(stripes(5), mask=np.roll(stripes(5).mask, 9, axis=1))
    val = packed("val", [stripes(3), lie, stripes(4)])
    result = measure(val, packed("train", [stripes(0)]))
    (worst,), (best,) = result["worst"], result["best"]
    assert worst["image"] == "stripes-5" and best["image"] != "stripes-5" and best["miou"] > worst["miou"]
