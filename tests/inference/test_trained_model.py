"""A trained model in somebody's hands."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from spml_dist.config import dump, load
from spml_dist.errors import DataError, RunError
from spml_dist.inference import whole_image
from spml_dist.inference.trained_model import load_model, predict
from spml_dist.model import cam, export
from spml_dist.model.segmenter import build
from tests.inference.conftest import CLASSES, stripes

SMALL = Path(__file__).parents[1] / "small.yaml"
IMAGE = stripes(0).image


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder as training leaves it; the network has learnt nothing."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    config = load(SMALL, ["model.embedding_dim=8", "evaluation.longer_side=40"])
    network = build(config.model, len(CLASSES), seed=0)
    export.save(network.state_dict(), folder / "export", config.model, list(CLASSES), 1, 40)
    (folder / "config.yaml").write_text(dump(config))
    return folder


def test_it_knows_what_it_was_trained_for(run):
    model = load_model(run, device="cpu")
    assert model.classes == tuple(CLASSES)
    assert (model.background, model.step, model.longer_side) == (1, 40, 40)


def test_it_labels_every_pixel_of_an_image(run):
    labels = load_model(run)(IMAGE)
    assert labels.shape == IMAGE.shape[:2] and labels.dtype == np.uint8
    assert labels.max() < len(CLASSES)


def test_scores_are_probabilities_whose_largest_is_the_label(run):
    model = load_model(run)
    scores = model.scores(IMAGE)
    assert scores.shape == (len(CLASSES), *IMAGE.shape[:2]) and scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(axis=0), 1, rtol=1e-5)
    np.testing.assert_array_equal(scores.argmax(axis=0), model(IMAGE))


def test_it_sees_what_an_evaluation_of_the_run_sees(run):
    network, _ = export.load(run / "export")
    logits = whole_image.classify(network, whole_image.embed(network, IMAGE, longer_side=40))
    np.testing.assert_array_equal(load_model(run, device="cpu")(IMAGE), logits.argmax(axis=0))


@pytest.mark.parametrize("place", ["", "export", "export/model.safetensors"])
def test_run_export_and_file_are_the_same_model(run, place):
    np.testing.assert_array_equal(predict(run / place, IMAGE), predict(load_model(run), IMAGE))
    assert load_model(str(run / place)).longer_side == 40


def test_an_export_without_its_run_takes_images_at_their_own_size(run, tmp_path):
    shutil.copytree(run / "export", tmp_path / "export")
    assert load_model(tmp_path / "export").longer_side is None


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (IMAGE.astype(np.float32) / 255, "no array of uint8 (got float32)"),
        (torch.from_numpy(IMAGE), "no array of uint8 (got torch.uint8)"),
        (IMAGE[..., 0], "not of shape [H, W, 3]"),
        (IMAGE.transpose(2, 0, 1), "not of shape [H, W, 3]"),
        (IMAGE[:0], "not of shape [H, W, 3]"),
    ],
)
def test_what_is_no_rgb_image_is_refused_in_a_line(run, image, problem):
    with pytest.raises(DataError) as refusal:
        load_model(run)(image)
    assert problem in str(refusal.value)


def test_a_place_without_a_model_is_named(tmp_path):
    with pytest.raises(RunError, match="holds no trained model; give the folder of a finished run"):
        load_model(tmp_path)


def test_a_cam_classifier_is_no_segmenter(tmp_path):
    config = load(SMALL).model
    network = cam.build(config, len(CLASSES), seed=0)
    export.save(network.state_dict(), tmp_path, config, list(CLASSES), 1, 40, "cam")
    with pytest.raises(RunError, match="segmenter"):
        load_model(tmp_path)
