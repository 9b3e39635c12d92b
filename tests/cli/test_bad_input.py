"""What a user can get wrong, typed as a user types it: one line that names file or key and the remedy,
exit status 2, nothing lost; and what looks wrong but is fine."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spml_dist.cli import main
from spml_dist.config import dump, load
from spml_dist.data.format.manifest import read_manifest

Mend = Callable[[Path], None]


def message(capsys) -> str:
    """The one line of a mistake; progress bars may stand before it."""
    text = capsys.readouterr().err
    assert "Traceback" not in text
    lines = [line for line in text.replace("\r", "\n").splitlines() if "error" in line]
    assert len(lines) == 1 and lines[0].startswith("spml-dist: error: "), text
    assert text.endswith(lines[0] + "\n")
    return lines[0].removeprefix("spml-dist: error: ")


class TestFolder:
    """`spml-dist pack folder` on images and annotations that cannot be used."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        root = tmp_path / "pets"
        for name in ("images", "weak/lines"):
            (root / name).mkdir(parents=True)
        (root / "classes.txt").write_text("0 ground\n1 cat\n2 dog\n")
        (root / "meta.json").write_text(json.dumps({"background": 0}))
        (root / "train.txt").write_text("a\nb\n")
        for seed, name in enumerate("ab"):
            pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / f"{name}.jpg")
            draw(root, name, label=1 + seed)
        return root

    def pack(self, folder: Path) -> int:
        words = ["--labels", "lines", "--split", "train", "--strict"]
        return main(["pack", "folder", str(folder), *words, "--out", str(folder.parent / "packed")])

    @pytest.mark.parametrize(
        ("spoil", "names", "remedy"),
        [
            (lambda root: draw(root, "b", label=3), "weak/lines/b.png", "0..2"),
            (lambda root: draw(root, "b", size=(32, 25)), "images/b.jpg", "differ in size"),
            (lambda root: (root / "train.txt").write_text("\n"), "train.txt", "one a line"),
            (lambda root: (root / "train.txt").write_text("a\nc\n"), "images/c", "c"),
            (lambda root: (root / "classes.txt").write_text("0 ground\n2 dog\n"), "classes.txt", "1"),
            (lambda root: cut(root / "images" / "b.jpg", 300), "images/b.jpg", "replace"),
        ],
        ids=["label", "size", "empty", "missing", "gap", "image"],
    )
    def test_a_mistake_names_its_file_and_leaves_the_earlier_pack(
        self, folder: Path, capsys, spoil: Mend, names: str, remedy: str
    ):
        assert self.pack(folder) == 0
        packed = contents(folder.parent / "packed")
        capsys.readouterr()
        spoil(folder)
        assert self.pack(folder) == 2
        line = message(capsys)
        assert names in line and remedy in line
        assert contents(folder.parent / "packed") == packed

    def test_an_image_without_any_annotation_is_unlabelled_and_fine(self, folder: Path):
        (folder / "weak" / "lines" / "b.png").unlink()
        assert self.pack(folder) == 0
        counts = read_manifest(folder.parent / "packed").counts
        assert counts.images_unlabelled == 1


class TestShards:
    """Shards damaged after packing, met by checking, training's first look, and evaluation."""

    @pytest.fixture
    def run(self, sample: Path, tmp_path: Path, experiment) -> Path:
        """A finished run over shards of its own; the network has learnt nothing."""
        from spml_dist.model import export
        from spml_dist.model.segmenter import build

        data = shutil.copytree(sample, tmp_path / "data")
        file, *overrides = experiment(tmp_path, "run", f"data.train={data}/train", f"data.val={data}/val")
        config, manifest = load(file, overrides), read_manifest(data / "train")
        folder = tmp_path / "run"
        state = build(config.model, len(manifest.classes), 0).state_dict()
        export.save(state, folder / "export", config.model, list(manifest.classes), manifest.background, 6)
        (folder / "config.yaml").write_text(dump(config))
        return folder

    @pytest.mark.parametrize("verb", ["verify", "evaluate"])
    @pytest.mark.parametrize("spoil", ["truncated", "image", "gone"])
    def test_the_tar_is_named_and_nothing_is_written(self, run: Path, capsys, verb: str, spoil: str):
        data = run.parent / "data"
        (tar,) = (data / "val").glob("*.tar")
        {"truncated": halve, "image": blank_an_image, "gone": Path.unlink}[spoil](tar)
        before = contents(run)
        assert main(["verify", str(data)] if verb == "verify" else ["evaluate", str(run)]) == 2
        line = message(capsys)
        assert tar.name in line and "pack" in line.partition(";")[2]
        assert contents(run) == before

    @pytest.mark.parametrize(
        ("spoil", "words"),
        [
            (lambda path: path.unlink(), "no such file"),
            (lambda path: path.write_text("{"), "cannot be read as JSON"),
            (lambda path: path.write_text('{"version": 9}'), "version"),
        ],
    )
    def test_a_manifest_that_cannot_be_used_stops_training_before_it_begins(
        self, run: Path, capsys, spoil: Mend, words: str
    ):
        config, manifest = run / "config.yaml", run.parent / "data" / "train" / "manifest.json"
        spoil(manifest)
        assert main(["train", str(config), "name=other"]) == 2
        line = message(capsys)
        assert str(manifest) in line and words in line
        assert not (run.parent / "other").exists()

    def test_the_way_there_is_shown_only_with_debug(self, run: Path, capsys):
        (run.parent / "data" / "val" / "manifest.json").unlink()
        assert main(["--debug", "evaluate", str(run)]) == 2
        text = capsys.readouterr().err
        assert text.startswith("Traceback") and "read_manifest" in text
        assert text.splitlines()[-1].startswith("spml-dist: error: ")


class TestRunFolder:
    def test_a_misspelt_key_names_the_nearest(self, experiment, tmp_path: Path, capsys):
        assert main(["train", *experiment(tmp_path, "tiny"), "stream.bach=4"]) == 2
        line = message(capsys)
        assert "stream.bach" in line and "did you mean stream.batch?" in line

    def test_evaluating_what_is_not_trained_names_the_remedy(self, tmp_path: Path, capsys):
        assert main(["evaluate", str(tmp_path / "none")]) == 2
        assert f"{tmp_path / 'none'}: no such run folder" in message(capsys)

    def test_a_split_that_was_not_given_names_the_key(self, experiment, tmp_path: Path, capsys):
        file, *overrides = experiment(tmp_path, "tiny")
        (tmp_path / "tiny" / "export").mkdir(parents=True)
        (tmp_path / "tiny" / "config.yaml").write_text(dump(load(file, overrides)))
        assert main(["evaluate", str(tmp_path / "tiny"), "--split", "test"]) == 2
        assert "data.test" in message(capsys)


def draw(root: Path, image_id: str, label: int = 1, size: tuple[int, int] = (32, 24)) -> None:
    """A scribble of one class; size: width and height in pixels."""
    pixels = np.full(size[::-1], 255, np.uint8)
    pixels[5, 3:20] = label
    Image.fromarray(pixels).save(root / "weak" / "lines" / f"{image_id}.png")


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def halve(path: Path) -> None:
    cut(path, path.stat().st_size // 2)


def blank_an_image(path: Path) -> None:
    """Zeros in the place of the second image of a tar."""
    with tarfile.open(path) as tar:
        member = [member for member in tar if member.name.endswith(".jpg")][1]
    with path.open("r+b") as file:
        file.seek(member.offset_data)
        file.write(bytes(member.size))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
