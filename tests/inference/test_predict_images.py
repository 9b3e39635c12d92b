"""`spml-dist predict`: collections of images labelled into a folder."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from pycocotools.coco import COCO

from spml_dist import cluster
from spml_dist.cli import main
from spml_dist.config import dump, load
from spml_dist.drawing.overlay import palette
from spml_dist.inference import brush_runs
from spml_dist.inference.label_pictures import LabelPictures
from spml_dist.inference.prediction_folder import PredictionFolder
from spml_dist.inference.trained_model import load_model
from spml_dist.model import export
from spml_dist.model.segmenter import build
from tests.inference.conftest import CLASSES, stripes, with_crf

SMALL = Path(__file__).parents[1] / "small.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder as training leaves it; the network has learnt nothing."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    config = load(SMALL, ["model.embedding_dim=8"])
    network = build(config.model, len(CLASSES), seed=0)
    export.save(network.state_dict(), folder / "export", config.model, list(CLASSES), 1, 40)
    (folder / "config.yaml").write_text(dump(config))
    return folder


@pytest.fixture
def photos(tmp_path) -> Path:
    """Pictures as people have them: a turned one, grey, with alpha, in a folder of its own."""
    folder = tmp_path / "photos"
    (folder / "trip").mkdir(parents=True)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(stripes(0).image).save(folder / "a.jpg", exif=turned)
    Image.fromarray(stripes(1).image).convert("L").save(folder / "b.png")
    Image.fromarray(stripes(2).image).convert("RGBA").save(folder / "trip" / "c.png")
    return folder


def predict(run: Path, *words) -> int:
    return main(["predict", str(run), *map(str, words), "--device", "cpu"])


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def predictions(out: Path) -> dict:
    return json.loads((out / "predictions.json").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_folder_of_photos_becomes_masks_overlays_and_what_was_found(run, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict(run, photos, "--out", out) == 0
    assert "labelled 3 images" in capsys.readouterr().out
    found = predictions(out)
    assert [entry["image"] for entry in found["images"]] == ["a", "b", "trip/c"]
    assert found["classes"] == list(CLASSES) and found["background"] == 1
    model = load_model(run, "cpu")
    for entry, image in zip(found["images"], [np.rot90(read(photos / "a.jpg"), -1)], strict=False):
        labels = read(out / entry["mask"])
        np.testing.assert_array_equal(labels, model(np.ascontiguousarray(image)))
        assert (entry["height"], entry["width"]) == labels.shape == (61, 45)
        shares = {name: (labels == label).mean() for label, name in enumerate(CLASSES)}
        assert entry["classes"] == pytest.approx({k: v for k, v in shares.items() if v}, abs=1e-6)
        certain = read(out / entry["confidence"])
        assert certain.dtype == np.uint8 and certain.shape == labels.shape
        assert entry["mean_confidence"] == pytest.approx(certain.mean() / 255, abs=1e-4)
        drawn = read(out / entry["overlay"])
        assert drawn.shape[0] > 61 and drawn.shape[1] >= 45, "the names of the colours stand below the image"
        paper = drawn[61:].reshape(-1, 3).astype(int)
        for name in (name for name, share in entry["classes"].items() if share >= 0.01):
            colour = palette(3, background=1)[CLASSES.index(name)].astype(int)
            assert (abs(paper - colour).max(axis=1) < 40).any(), name
    with Image.open(out / "masks" / "trip" / "c.png") as picture:
        assert picture.mode == "P" and json.loads(picture.text["classes"]) == list(CLASSES)
        np.testing.assert_array_equal(
            np.reshape(picture.getpalette(), (-1, 3))[:3], palette(3, background=1)[:3]
        )
    assert not list(out.rglob("*.tmp")) and not (out / "unfinished.jsonl").exists()


def test_what_is_not_wanted_is_left_out(run, photos, tmp_path):
    predict(run, photos / "b.png", "--out", tmp_path / "out", "--no-overlays", "--no-confidence")
    assert sorted(contents(tmp_path / "out")) == ["masks/b.png", "predictions.json"]


def test_pictures_that_cannot_be_read_are_named_and_the_others_go_on(run, photos, tmp_path, capsys):
    (photos / "broken.jpg").write_bytes((photos / "a.jpg").read_bytes()[:400])
    (photos / "empty.png").write_bytes(b"")
    deep = np.zeros((20, 30), np.uint16)
    Image.fromarray(deep).save(photos / "deep.png")
    out = tmp_path / "out"
    assert predict(run, photos, "--out", out, "--batch", 4) == 3
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert [entry["image"] for entry in rejected] == ["broken", "deep", "empty"]
    assert "Truncated" in rejected[0]["reason"] and "8 bits" in rejected[1]["reason"]
    assert len(predictions(out)["images"]) == 3 and predictions(out)["rejected"] == 3
    assert "3 of 6 images could not be read" in capsys.readouterr().err
    for name in ("broken.jpg", "empty.png", "deep.png"):
        (photos / name).unlink()
    assert predict(run, photos, "--out", out, "--batch", 4) == 0
    assert not (out / "rejected.jsonl").exists()


def test_files_lists_and_packs_are_named_after_their_paths(run, photos, packed, tmp_path, monkeypatch):
    pack = packed("shards", [stripes(0)])
    lines = f"{photos / 'b.png'}\n\n{photos / 'trip' / 'c.png'}\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    assert predict(run, pack, "-", "--out", tmp_path / "out") == 0
    found = [entry["image"] for entry in predictions(tmp_path / "out")["images"]]
    assert found == ["shards/stripes-0", "photos/b", "photos/trip/c"]
    assert predict(run, pack, "--out", tmp_path / "alone") == 0
    assert [entry["image"] for entry in predictions(tmp_path / "alone")["images"]] == ["stripes-0"]


def test_images_that_differ_in_their_suffix_alone_keep_it(run, photos, tmp_path):
    shutil.copy(photos / "a.jpg", photos / "trip" / "c.jpg")
    files = [photos / "trip" / name for name in ("c.jpg", "c.png")]
    for out, given in (("files", files), ("folder", [photos / "trip"])):
        assert predict(run, *given, "--out", tmp_path / out) == 0
        names = [entry["image"] for entry in predictions(tmp_path / out)["images"]]
        assert names == ["c.jpg", "c.png"] and (tmp_path / out / "masks" / "c.jpg.png").exists()


def test_what_is_left_of_images_that_are_gone_goes_too(run, photos, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    assert predict(run, photos, "--out", out, "--format", "coco") == 0
    assert predict(run, photos, "--out", out) == 0 and (out / "coco.json").exists(), "it is as true as before"
    (photos / "b.png").unlink()
    assert predict(run, photos, "--out", out) == 0
    assert predict(run, photos, "--out", out, "--format", "coco") == 0
    with monkeypatch.context() as patched:  # with one more it is interrupted when all are labelled
        shutil.copy(photos / "a.jpg", photos / "d.jpg")
        patched.setattr(PredictionFolder, "complete", interrupted)
        assert predict(run, photos, "--out", out) == 130
    assert predict(run, photos, "--out", out) == 0
    left = contents(out)
    assert (
        "masks/a.png" in left
        and "masks/d.png" in left
        and not [name for name in left if "/b." in name or name == "coco.json"]
    )


def test_the_files_are_the_same_for_any_number_of_workers(run, photos, tmp_path, monkeypatch):
    """Workers get function and batches through a pipe, and finish in any order."""
    assert predict(run, photos, "--out", tmp_path / "one", "--workers", 1) == 0

    def backwards(function, items, workers):
        assert workers == 2
        for item in reversed(list(items)):
            yield pickle.loads(pickle.dumps(function))(pickle.loads(pickle.dumps(item)))

    monkeypatch.setattr(cluster, "spread", backwards)
    assert predict(run, photos, "--out", tmp_path / "two", "--workers", 2) == 0
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_an_interrupted_call_goes_on_and_ends_as_if_it_had_not_been(run, photos, tmp_path, monkeypatch):
    assert predict(run, photos, "--out", tmp_path / "whole") == 0
    write, written = LabelPictures.write, []

    def stopping(pictures, name, image, labels):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(name)
        write(pictures, name, image, labels)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(LabelPictures, "write", stopping)
        assert predict(run, photos, "--out", out) == 130
    assert not (out / "predictions.json").exists()
    with (out / "unfinished.jsonl").open("a") as file:
        file.write('{"image": "trip')  # the line that a kill cut off
    (out / "masks" / "b.png").unlink()
    rest = []
    with monkeypatch.context() as patch:
        patch.setattr(LabelPictures, "write", lambda *given: [rest.append(given[1]), write(*given)])
        assert predict(run, photos, "--out", out) == 0
    assert rest == ["b", "trip/c"], "what is done is not done again, what is gone is"
    assert contents(out) == contents(tmp_path / "whole")


def test_an_image_that_has_changed_is_labelled_again(run, photos, tmp_path):
    out = tmp_path / "out"
    predict(run, photos, "--out", out)
    Image.fromarray(stripes(2, height=30).image).save(photos / "b.png")
    assert predict(run, photos, "--out", out) == 0
    assert read(out / "masks" / "b.png").shape == (30, 61)


def message(capsys) -> str:
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.splitlines()[-1]


def test_mistakes_are_a_line_and_nothing_is_written(run, photos, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    before = contents(tmp_path)
    for words, named in [
        ((run, photos, "--out", photos / "labels"), "inside the images' folder"),
        ((run, photos, "--out", other), "other: holds other files than predictions"),
        ((run, photos / "none.jpg", "--out", tmp_path / "out"), "none.jpg: no such file or folder"),
        ((run, other, "--out", tmp_path / "out"), "other: no image in it"),
        ((photos, photos, "--out", tmp_path / "out"), "holds no trained model"),
        ((run, photos, "--out", tmp_path / "out", "--scales", "0"), "scales"),
        ((run, photos, "--out", tmp_path / "out", "--window", "99999999"), "16 to 2,048 pixels"),
        ((run, photos, "--out", tmp_path / "out", "--batch", "9" * 5000), "at most 1,000,000,000"),
    ]:
        assert predict(*words) == 2
        assert named in message(capsys)
    assert contents(tmp_path) == before


def test_a_second_call_into_one_folder_at_once_is_refused(run, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict(run, photos, "--out", out) == 0
    with FileLock(out / "unfinished.lock"):
        assert predict(run, photos, "--out", out) == 2
    assert "another process labels images into it" in message(capsys)


def test_other_settings_want_another_folder(run, photos, tmp_path, capsys):
    out = tmp_path / "out"
    predict(run, photos, "--out", out)
    before = contents(out)
    assert predict(run, photos, "--out", out, "--mirror") == 2
    assert "holds predictions by other settings; choose another --out" in message(capsys)
    assert contents(out) == before


def test_the_crf_that_is_not_installed_is_told_before_anything_is_written(
    run, photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    assert predict(run, photos, "--out", tmp_path / "out", "--crf") == 2
    assert "spml-dist[crf]" in message(capsys) and not (tmp_path / "out").exists()


@with_crf
def test_views_and_crf_are_those_of_the_library(run, photos, tmp_path):
    out = tmp_path / "out"
    assert (
        predict(run, photos / "b.png", "--out", out, "--scales", "0.5,1", "--mirror", "--window", 32, "--crf")
        == 0
    )
    model = load_model(run, "cpu")
    image = np.repeat(read(photos / "b.png")[..., None], 3, axis=-1)
    labels = model(image, model.views((0.5, 1), mirror=True, window=32), crf=True)
    np.testing.assert_array_equal(read(out / "masks" / "b.png"), labels)


def test_coco_holds_the_masks(run, photos, tmp_path):
    out = tmp_path / "out"
    assert predict(run, photos, "--out", out, "--format", "coco") == 0
    tool = COCO(out / "coco.json")
    assert [category["name"] for category in tool.cats.values()] == ["red", "blue"], "without the background"
    assert [image["file_name"] for image in tool.imgs.values()] == ["a.jpg", "b.png", "trip/c.png"]
    for number, entry in enumerate(predictions(out)["images"], 1):
        labels = read(out / entry["mask"])
        covered = np.full(labels.shape, 1)
        for annotation in tool.imgToAnns[number]:
            inside = tool.annToMask(annotation).astype(bool)
            assert annotation["area"] == inside.sum()
            covered[inside] = annotation["category_id"] - 1
        np.testing.assert_array_equal(covered, labels)


def test_coco_names_images_of_a_pack_whatever_its_folder_is_called(run, packed, tmp_path):
    folder = packed("val", [stripes(0)]).rename(tmp_path / "val.v2")
    assert predict(run, folder, "--out", tmp_path / "out", "--format", "coco") == 0
    images = json.loads((tmp_path / "out" / "coco.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["stripes-0.jpg"]


def test_label_tools_are_told_the_files_as_they_are_called(run, photos, tmp_path):
    """A suffix twice, none, or one of a camera's: what people gave is what the tool looks for."""
    for name in ("a.jpg.jpg", "noted", "b.jfif"):
        shutil.copy(photos / "a.jpg", tmp_path / name)
    given = [tmp_path / name for name in ("a.jpg.jpg", "noted", "b.jfif")]
    assert predict(run, *given, "--out", tmp_path / "out", "--format", "coco") == 0
    images = json.loads((tmp_path / "out" / "coco.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["a.jpg.jpg", "noted", "b.jfif"]


def test_a_class_that_cvat_cannot_name_is_told_before_an_image_is_labelled(run, photos, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    info = tmp_path / "run" / "export" / "model.json"
    info.write_text(info.read_text().replace('"red"', '"a:b"'))
    assert predict(tmp_path / "run", photos, "--out", tmp_path / "out", "--format", "cvat") == 2
    assert "a class name with a colon" in message(capsys) and not (tmp_path / "out").exists()


def test_names_as_long_as_names_can_be_are_written(run, photos, tmp_path):
    name = f"{'名' * 83}{'a' * 2}"  # 251 bytes: no room for .tmp behind .png
    (photos / "a.jpg").rename(photos / f"{name}.jpg")
    assert predict(run, photos, "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "masks" / f"{name}.png").exists()
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_a_list_with_names_of_other_bytes_is_one_line(run, photos, tmp_path, monkeypatch, capsys):
    (photos / os.fsdecode(b"caf\xe9.jpg")).write_bytes((photos / "a.jpg").read_bytes())
    listed = io.TextIOWrapper(io.BytesIO(os.fsencode(photos) + b"/caf\xe9.jpg\n"), "utf-8", "strict")
    monkeypatch.setattr(sys, "stdin", listed)
    assert predict(run, "-", "--out", tmp_path / "out") == 2
    assert "its name is no UTF-8; rename it" in message(capsys)


def test_an_image_s_name_may_hold_what_ends_lines_elsewhere(run, photos, tmp_path, monkeypatch):
    (photos / "a.jpg").rename(photos / "a\u2028b.jpg")
    folder = PredictionFolder(tmp_path / "out", {"model": 1})
    folder.begin()
    folder.add([{"image": "a\u2028b"}, {"image": "c"}])
    folder.close()
    assert list(PredictionFolder(tmp_path / "out", {"model": 1}).begin()) == ["a\u2028b", "c"]


def test_cvat_holds_the_masks_in_the_colours_of_its_label_map(run, photos, tmp_path):
    out = tmp_path / "out"
    assert predict(run, photos, "--out", out, "--format", "cvat", "--format", "cvat") == 0
    with zipfile.ZipFile(out / "cvat.zip") as archive:
        lines = archive.read("labelmap.txt").decode().splitlines()[1:]
        colours = {line.split(":")[0]: [int(v) for v in line.split(":")[1].split(",")] for line in lines}
        assert colours["green"] == [0, 0, 0] and list(colours) == list(CLASSES)
        assert archive.read("ImageSets/Segmentation/default.txt").decode().split() == ["a", "b", "trip/c"]
        for name in ("a", "b", "trip/c"):
            shown = np.array(Image.open(io.BytesIO(archive.read(f"SegmentationClass/{name}.png"))))
            labels = read(out / "masks" / f"{name}.png")
            np.testing.assert_array_equal(shown, np.array(list(colours.values()))[labels])


def test_label_studio_holds_the_masks_as_brushes(run, photos, tmp_path):
    out = tmp_path / "out"
    assert predict(run, photos, "--out", out, "--format", "labelstudio") == 0
    tasks = json.loads((out / "labelstudio.json").read_text())
    assert [task["data"]["image"] for task in tasks] == ["a.jpg", "b.png", "trip/c.png"]
    setup = ElementTree.parse(out / "labelstudio.xml").getroot()
    (labels,) = setup.iter("BrushLabels")
    assert [label.get("value") for label in labels] == ["red", "blue"], "without the background"
    for task, entry in zip(tasks, predictions(out)["images"], strict=True):
        expected = read(out / entry["mask"])
        covered = np.full(expected.shape, 1)
        for brush in task["predictions"][0]["result"]:
            assert (brush["from_name"], brush["to_name"]) == (labels.get("name"), labels.get("toName"))
            rgba = unpacked(brush["value"]["rle"]).reshape(
                brush["original_height"], brush["original_width"], 4
            )
            covered[rgba[..., 3] > 0] = CLASSES.index(brush["value"]["brushlabels"][0])
        np.testing.assert_array_equal(covered, expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (200, 333)])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 1])
def test_a_brush_is_unpacked_to_its_mask(shape, share):
    mask = np.random.default_rng(0).random(shape) < share
    np.testing.assert_array_equal(
        unpacked(brush_runs.encode(mask)), np.repeat(np.where(mask, 255, 0).ravel(), 4)
    )


def unpacked(content: list[int]) -> np.ndarray:
    """As @thi.ng/rle-pack, which Label Studio reads brushes by, decodes: bit after bit."""
    bits = iter("".join(f"{byte:08b}" for byte in content))

    def number(width: int) -> int:
        return int("".join(next(bits) for _ in range(width)), 2)

    count, width, sizes = number(32), number(5) + 1, [number(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < count:
        is_run, length = number(1), number(sizes[number(2)]) + 1
        values += [number(width)] * length if is_run else [number(width) for _ in range(length)]
    return np.array(values)
