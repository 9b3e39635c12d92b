"""A run's network as a folder of its own, as an ONNX graph, and as a model that MLflow serves."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from spml_dist.config import dump, load
from spml_dist.errors import RunError
from spml_dist.inference import mlflow_model, onnx_graph
from spml_dist.inference.export_run import export_run
from spml_dist.inference.trained_model import load_model
from spml_dist.model import export
from spml_dist.model.segmenter import build
from spml_dist.records import Normalisation
from tests.inference.conftest import CLASSES, stripes

SMALL = Path(__file__).parents[1] / "small.yaml"
IMAGE = stripes(0).image
OWN = Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return made(tmp_path_factory.mktemp("runs") / "toy")


def made(folder: Path, seed: int = 0) -> Path:
    """A run folder as training leaves it, of a network with a normalisation of its own."""
    words = [
        "model.backbone=test_resnet",
        "model.embedding_dim=8",
        "evaluation.longer_side=40",
        "stream.crop=96",
    ]
    config = load(SMALL, words)
    state = build(config.model, len(CLASSES), seed).state_dict()
    export.save(state, folder / "export", config.model, list(CLASSES), 1, 40, normalisation=OWN)
    (folder / "config.yaml").write_text(dump(config))
    return folder


class TestFolder:
    def test_it_is_the_run_s_model_without_the_run(self, run, tmp_path):
        exported = export_run(run, out=tmp_path / "away")
        away, at_home = load_model(exported.folder, "cpu"), load_model(run, "cpu")
        np.testing.assert_array_equal(away.scores(IMAGE), at_home.scores(IMAGE))
        assert away.longer_side == 40 and away.network.normalisation == OWN

    def test_it_says_what_it_takes_to_use_it(self, run, tmp_path):
        export_run(run, out=tmp_path / "away")
        info = json.loads((tmp_path / "away" / "model.json").read_text())
        assert (info["classes"], info["background"], info["step"]) == (list(CLASSES), 1, 40)
        assert (info["mean"], info["deviation"]) == ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
        assert (info["crop"], info["longer_side"]) == (96, 40)

    def test_the_same_once_more_changes_nothing(self, run, tmp_path):
        first = export_run(run, out=tmp_path / "away")
        written = (tmp_path / "away" / "model.safetensors").stat().st_mtime_ns
        again = export_run(run, out=tmp_path / "away")
        assert (first.new, again.new) == (True, False)
        assert (tmp_path / "away" / "model.safetensors").stat().st_mtime_ns == written

    @pytest.mark.parametrize("held", ["something", "another step"])
    def test_a_folder_with_something_else_is_refused_and_stays(self, run, tmp_path, held):
        out = tmp_path / "away"
        if held == "something":
            out.mkdir()
            (out / "notes.txt").write_text("mine")
        else:
            export_run(run, out=out)
            info = json.loads((out / "model.json").read_text())
            (out / "model.json").write_text(json.dumps(info | {"step": 30}))
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        with pytest.raises(RunError, match=r"away exists and holds (no|another) export; give another --out"):
            export_run(run, out=out)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before

    def test_a_run_that_has_not_come_to_its_end_is_named(self, run, tmp_path):
        shutil.copy(run / "config.yaml", tmp_path)
        with pytest.raises(RunError, match="holds no trained model"):
            export_run(tmp_path)


class TestOnnx:
    @pytest.fixture(scope="class")
    def graph(self, run) -> Path:
        pytest.importorskip("onnxruntime")
        exported = export_run(run, "onnx")
        assert exported.difference <= onnx_graph.TOLERANCE
        return exported.folder

    def test_its_scores_are_the_model_s_for_pictures_of_any_size(self, run, graph, tmp_path):
        import onnxruntime

        session = onnxruntime.InferenceSession(str(graph / "model.onnx"))
        model = load_model(export_run(run, out=tmp_path / "away").folder, "cpu")
        network = model.network
        for height, width in ((33, 47), (128, 96)):
            image = np.resize(IMAGE, (height, width, 3))
            scores, embedding = session.run(None, {"images": image[None]})
            wanted = type(model)(network, model.classes, model.background, model.step).scores(image)
            np.testing.assert_allclose(scores[0], wanted, atol=1e-4)
            np.testing.assert_allclose(np.linalg.norm(embedding[0], axis=0), 1, atol=1e-4)

    def test_classes_and_preprocessing_lie_beside_it(self, graph):
        assert {path.name for path in graph.iterdir()} == {"model.onnx", "model.json"}
        assert json.loads((graph / "model.json").read_text())["classes"] == list(CLASSES)

    def test_a_graph_that_computes_something_else_is_no_export(self, run, graph, tmp_path, monkeypatch):
        other = made(tmp_path / "other", seed=1)
        monkeypatch.setattr(onnx_graph, "_export", lambda _, path: shutil.copy(graph / "model.onnx", path))
        with pytest.raises(RunError, match=r"its outputs differ from the network's by .*, more than 0.0001"):
            export_run(other, "onnx", tmp_path / "away")
        assert [path.name for path in tmp_path.iterdir()] == ["other"]

    def test_without_the_packages_their_extra_is_named(self, run, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(RunError, match=r"ONNX needs packages .*onnxruntime.*spml-dist\[onnx\]"):
            export_run(run, "onnx", tmp_path / "away")


class TestMlflowModel:
    def test_a_row_a_picture(self, run):
        import cv2
        from pandas import DataFrame

        model = mlflow_model._load_pyfunc(str(run / "export"))
        content = cv2.imencode(".png", IMAGE[..., ::-1])[1].tobytes()
        answer = model.predict(DataFrame({"image": [content, mlflow_model.example()]}))
        assert list(answer.columns) == ["labels", "classes"]
        labels = cv2.imdecode(np.frombuffer(answer["labels"][0], np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(labels, load_model(run, "cpu")(IMAGE))
        assert answer["classes"][1] == list(CLASSES)
