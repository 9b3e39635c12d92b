"""The images recipe: a bare folder of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spml_dist.cli import main
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.format.verify import verify
from spml_dist.data.recipes.images import open_images
from spml_dist.errors import DataError
from tests.data.conftest import HEIGHT, WIDTH, image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "my photos"
    (root / "2024/may").mkdir(parents=True)
    (root / ".cache").mkdir()
    Image.fromarray(image(0)).save(root / "IMG.1.jpg", quality=90)
    Image.fromarray(image(1)).save(root / "2024/may/b.PNG")
    Image.fromarray(image(2)).save(root / ".cache/b.jpg")
    (root / "notes.txt").write_text("no image")
    return root


def test_images_at_any_depth_become_unlabelled_samples(photos):
    recipe = open_images(photos)
    assert recipe.ids == ("2024/may/b", "IMG.1")
    for sample in recipe.samples():
        assert sample.image.shape == (HEIGHT, WIDTH, 3) and (sample.semantic == 254).all()
        assert sample.tags is None and sample.mask is None


def test_the_files_own_bytes_are_kept(photos):
    recipe = open_images(photos)
    assert recipe.jpeg(recipe.sample("IMG.1")) == (photos / "IMG.1.jpg").read_bytes()
    assert recipe.jpeg(recipe.sample("2024/may/b"))[:2] == b"\xff\xd8"


def test_the_command_packs_a_folder_that_verifies(photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["pack", "images", str(photos), "--out", str(out)]) == 0
    manifest = read_manifest(out)
    assert (manifest.name, manifest.split, manifest.labels) == ("my_photos-all", "all", "none")
    assert (manifest.samples, manifest.classes, manifest.background) == (2, (), None)
    assert manifest.counts.images_tags_unknown == 2 and verify(out)["problems"] == []


def test_regions_are_chosen_as_for_a_folder(photos, tmp_path, capsys):
    ready = tmp_path / "ready"
    (ready / "2024/may").mkdir(parents=True)
    regions = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    Image.fromarray(regions).save(ready / "IMG.1.png")
    arguments = ["pack", "images", str(photos), "--regions", str(ready), "--out", str(tmp_path / "out")]
    arguments += ["--strict"]
    assert main(arguments) == 2 and "2024/may/b.png: no regions of this image" in capsys.readouterr().err
    Image.fromarray(regions).save(ready / "2024/may/b.png")
    assert main(arguments) == 0 and verify(tmp_path / "out")["problems"] == []


def test_the_classes_of_labelled_packs_go_along(photos, root, tmp_path):
    out = tmp_path / "out"
    assert main(["pack", "images", str(photos), "--classes", str(root), "--out", str(out)]) == 0
    manifest = read_manifest(out)
    assert manifest.classes == ("background", "cat", "dog") and manifest.background == 0
    assert sum(manifest.counts.pixels_labelled) == 0 and verify(out)["problems"] == []


@pytest.mark.parametrize(
    ("spoil", "seen"),
    [
        (
            lambda root: Image.fromarray(image(3)).save(root / "IMG.1.jpeg"),
            "two images of one id.*rename",
        ),
        (lambda root: (root / "IMG.1.jpg").write_bytes(b"\xff\xd8 no"), r"IMG\.1\.jpg: cannot be decoded"),
        (lambda root: [path.unlink() for path in root.rglob("*") if path.is_file()], "no image in it"),
    ],
)
def test_a_folder_that_cannot_be_packed_is_named(photos, spoil, seen):
    spoil(photos)
    with pytest.raises(DataError, match=seen):
        list(open_images(photos).samples())


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        open_images(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "form"),
    [("x.Jpg", "JPEG"), ("x.jpe", "JPEG"), ("x.JFIF", "JPEG"), ("x.webp", "WEBP"), ("x.bmp", "BMP"),
     ("x.Tif", "TIFF"), ("x.tiff", "TIFF"), ("x.gif", "GIF")],
)  # fmt: skip
def test_images_of_every_known_format_and_spelling_are_packed(tmp_path, name, form):
    Image.fromarray(image(0)).save(tmp_path / name, form)
    (sample,) = open_images(tmp_path).samples()
    assert (sample.key, sample.image.shape) == ("x", (HEIGHT, WIDTH, 3))
    assert np.abs(sample.image.astype(int) - image(0)).mean() < 8


def test_of_an_animation_the_first_frame_is_packed(tmp_path):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    (sample,) = open_images(tmp_path).samples()
    assert (sample.image == (255, 0, 0)).all()


def test_what_is_left_out_is_counted_and_named(photos, tmp_path, capsys):
    (photos / "raw.CR2").write_bytes(b"raw")
    (photos / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert main(["pack", "images", str(photos), "--out", str(tmp_path / "out")]) == 0
    outcome = capsys.readouterr().err
    assert "other files are left out: 1 .cr2, 1 .jpg, 1 .txt" in outcome and "notes.txt" in outcome
    assert "hidden files and folders are left out: 1" in outcome and ".cache" in outcome


def test_linked_folders_are_followed_once_and_never_in_a_circle(photos, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    Image.fromarray(image(5)).save(store / "far.jpg")
    (photos / "a link").symlink_to(store)
    (photos / "another").symlink_to(store)
    (photos / "2024/circle").symlink_to(photos)
    recipe = open_images(photos)
    assert recipe.ids == ("2024/may/b", "IMG.1", "a link/far")
    (note,) = [note for note in recipe.notes if "packed already" in note]
    assert "another" in note and "circle" in note
    assert len(list(recipe.samples())) == 3
