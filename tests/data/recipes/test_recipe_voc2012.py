"""The voc2012 recipe, on small files in the formats of the devkit, SBD, ScribbleSup and What's the Point."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from scipy.sparse import csc_matrix

from spml_dist.cli import main
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.format.verify import verify
from spml_dist.data.recipes.voc2012 import CLASSES, LABELS, open_voc2012
from spml_dist.errors import DataError
from tests.data.conftest import HEIGHT, WIDTH, image, write_json

CAT, DOG = CLASSES.index("cat"), CLASSES.index("dog")
TRAIN, VAL, ONLY_SBD = "2007_000032", "2007_000033", "2008_000002"
DEVKIT, SBD = "VOCdevkit/VOC2012", "benchmark_RELEASE/dataset"
SCRIBBLES, CLICKS = "scribble_annotation/pascal_2012", "whats_the_point/data/pascal2012_trainval_main.json"


def voc_mask() -> np.ndarray:
    """A cat in the lower half, its outline void."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[15:], mask[15] = CAT, 255
    return mask


def sbd_mask() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, 20:] = DOG
    return mask


def write_devkit_mask(path: Path, mask: np.ndarray) -> None:
    indexed = Image.fromarray(mask).convert("P")
    indexed.putdata(mask.ravel().tolist())
    indexed.putpalette([value for index in range(256) for value in (index, 255 - index, 7 * index % 256)])
    indexed.save(path)


def write_sbd_mask(path: Path, mask: np.ndarray, name: str = "GTcls") -> None:
    boundaries = np.empty((20, 1), object)
    for index in range(20):
        boundaries[index, 0] = csc_matrix(mask.shape, dtype=bool)
    content = {"Boundaries": boundaries, "Segmentation": mask, "CategoriesPresent": [[DOG]]}
    savemat(path, {name: content}, do_compression=True)


def write_objects(path: Path, *objects: tuple[str, tuple[int, int, int, int]]) -> None:
    boxes = "".join(
        f"<object><name>{name}</name><pose>Left</pose><truncated>1</truncated><difficult>0</difficult>"
        f"<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, (x0, y0, x1, y1) in objects
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    head = f"<folder>VOC2012</folder><filename>{path.stem}.jpg</filename>{size}<segmented>1</segmented>"
    path.write_text(f"<annotation>{head}{boxes}</annotation>")


def write_scribbles(path: Path, *strokes: tuple[str, list[tuple[int, int]]], width: int = WIDTH) -> None:
    polygons = "".join(
        f"<polygon><tag>{name}</tag>"
        + "".join(f"<point><X>{x}</X><Y>{y}</Y></point>" for x, y in points)
        + "</polygon>"
        for name, points in strokes
    )
    size = f"<size><width>{width}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    path.write_text(f"<annotation><filename>{path.stem}.jpg</filename>{size}{polygons}</annotation>")


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """The unpacked archives: one image of VOC's train, one of its val, one that only SBD has masks of."""
    root = tmp_path / "voc"
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (root / DEVKIT / folder).mkdir(parents=True)
    for folder in (f"{SBD}/cls", SCRIBBLES, Path(CLICKS).parent):
        (root / folder).mkdir(parents=True)
    lists = {"train": [TRAIN], "val": [VAL], "trainval": [TRAIN, VAL]}
    for split, ids in lists.items():
        (root / DEVKIT / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(ids) + "\n")
    (root / SBD / "train.txt").write_text(f"{VAL}\n")
    (root / SBD / "val.txt").write_text(f"{ONLY_SBD}\n")
    for seed, image_id in enumerate((TRAIN, VAL, ONLY_SBD)):
        Image.fromarray(image(seed)).save(root / DEVKIT / "JPEGImages" / f"{image_id}.jpg", quality=90)
        write_objects(root / DEVKIT / "Annotations" / f"{image_id}.xml", ("cat", (11, 11, 30, 30)))
        strokes = ("background", [(2, 2), (36, 2)]), ("cat", [(10, 25), (20, 25), (30, 25), (99, 25)][:3])
        write_scribbles(root / SCRIBBLES / f"{image_id}.xml", *strokes)
    for image_id in (TRAIN, VAL):
        write_devkit_mask(root / DEVKIT / "SegmentationClass" / f"{image_id}.png", voc_mask())
    for image_id in (VAL, ONLY_SBD):
        write_sbd_mask(root / SBD / "cls" / f"{image_id}.mat", sbd_mask())
    click = {"x": 20, "y": 25, "cls": CAT, "rank": 1, "time": 1200}
    write_json(root / CLICKS, {TRAIN: [click, {**click, "x": WIDTH + 3}], VAL: []})
    return root


def packed(voc, labels, split="train", image_id=TRAIN, **options):
    return open_voc2012(voc, split, labels, **options).sample(image_id)


def test_train_aug_is_sbd_without_vocs_val_and_vocs_train(voc):
    assert open_voc2012(voc, "train_aug", "masks").ids == (TRAIN, ONLY_SBD)
    assert open_voc2012(voc, "trainval", "masks").ids == (TRAIN, VAL)


def test_masks_come_from_voc_and_otherwise_from_sbd(voc):
    assert np.array_equal(packed(voc, "masks").semantic, voc_mask())
    assert np.array_equal(packed(voc, "masks", "val", VAL).semantic, voc_mask())
    sample = packed(voc, "masks", "train_aug", ONLY_SBD)
    assert np.array_equal(sample.semantic, sbd_mask()) and sample.tags == (DOG,)


@pytest.mark.parametrize("labels", LABELS)
def test_masks_go_along_with_every_kind_of_labels(voc, labels):
    sample = packed(voc, labels)
    assert np.array_equal(sample.mask, voc_mask()) and sample.tags == (CAT,)
    assert sample.regions.shape == (HEIGHT, WIDTH) and sample.regions.dtype == np.uint16


def test_scribbles_are_drawn_three_pixels_wide_and_the_rest_is_unlabelled(voc):
    semantic = packed(voc, "scribbles").semantic
    assert (semantic[24:27, 9:32] == CAT).all() and (semantic[1:4, 1:38] == 0).all()
    assert (semantic < 254).sum() == 3 * 23 + 3 * 37


@pytest.mark.parametrize(("labels", "length"), [("scribbles80", 16), ("scribbles50", 10), ("scribbles30", 6)])
def test_shorter_scribbles_keep_the_middle(voc, labels, length):
    columns = np.nonzero(packed(voc, labels).semantic[25] == CAT)[0]
    assert columns.mean() == pytest.approx(20, abs=0.6)
    assert np.ptp(columns) == pytest.approx(length, abs=2)


def test_points_are_discs_at_the_middle_of_each_scribble(voc):
    semantic = packed(voc, "points", point_radius=1).semantic
    assert semantic[25, 20] == CAT and (semantic == CAT).sum() == 5
    assert semantic[2, 19] == 0 and (semantic == 0).sum() == 5


def test_clicks_beside_the_image_are_left_out_and_an_image_without_is_unlabelled(voc):
    semantic = packed(voc, "clicks", point_radius=0).semantic
    assert semantic[25, 20] == CAT and (semantic < 254).sum() == 1
    unclicked = packed(voc, "clicks", "val", VAL)
    assert (unclicked.semantic == 254).all() and unclicked.tags is None


def test_boxes_label_everything_outside_as_background_and_go_along(voc):
    sample = packed(voc, "boxes")
    assert (sample.kinds, sample.tags, sample.boxes) == (("boxes",), (CAT,), ((CAT, 10, 10, 30, 30),))
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[10:30, 10:30] = True  # the devkit counts from 1 and includes the last pixel
    assert np.array_equal(sample.semantic, np.where(inside, 254, 0))


def test_boxes_by_geometry_label_their_middle_too(voc):
    semantic = packed(voc, "boxes", boxes="geometry").semantic
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[10:30, 10:30] = True
    assert (semantic[~inside] == 0).all() and (semantic[inside] != 0).all()
    rows, columns = np.nonzero(semantic == CAT)
    for side in (rows, columns):
        assert side.mean() == pytest.approx(19.5) and np.ptp(side) + 1 == pytest.approx(20 * 0.2**0.5, abs=1)


def test_tags_label_no_pixel(voc):
    write_objects(
        voc / DEVKIT / f"Annotations/{TRAIN}.xml",
        ("dog", (1, 1, 5, 5)),
        ("cat", (1, 1, 9, 9)),
        ("dog", (2, 2, 5, 5)),
    )
    sample = packed(voc, "tags")
    assert (sample.semantic == 254).all() and sample.tags == (CAT, DOG)


def test_an_image_without_objects_is_known_to_show_none(voc):
    write_objects(voc / DEVKIT / f"Annotations/{TRAIN}.xml")
    boxes, tags = packed(voc, "boxes"), packed(voc, "tags")
    assert (boxes.tags, boxes.boxes, tags.tags) == ((), (), ()) and (boxes.semantic == 0).all()


@pytest.mark.parametrize(
    ("corners", "box"),
    [
        ((1, 1, WIDTH, HEIGHT), (0, 0, WIDTH, HEIGHT)),
        ((0, 0, WIDTH, HEIGHT), (0, 0, WIDTH, HEIGHT)),  # counted from 0
        ((-0.3, 0.4, 39.6, 30.5), (0, 0, 39.6, HEIGHT)),
        ((5, 5, 5, 5), (4, 4, 5, 5)),
    ],
)
def test_boxes_at_the_border_are_cut_there(voc, corners, box):
    write_objects(voc / DEVKIT / f"Annotations/{TRAIN}.xml", ("cat", corners))
    assert packed(voc, "boxes").boxes == ((CAT, *box),)


def test_annotations_of_an_image_before_it_was_turned_are_refused(voc):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(image(0)).save(voc / DEVKIT / f"JPEGImages/{TRAIN}.jpg", exif=exif)
    for labels in ("boxes", "tags", "scribbles"):
        with pytest.raises(DataError, match=r"got 40×30, the image is 30×40\).*EXIF"):
            packed(voc, labels)


def test_a_size_of_nought_is_no_size(voc):
    path = voc / DEVKIT / f"Annotations/{TRAIN}.xml"
    path.write_text(path.read_text().replace(f"<width>{WIDTH}</width>", "<width>0</width>"))
    assert packed(voc, "boxes").tags == (CAT,)


def test_a_split_without_annotations_is_unlabelled(voc):
    (voc / DEVKIT / "ImageSets/Segmentation/test.txt").write_text("2008_000001\n")
    Image.fromarray(image(7)).save(voc / DEVKIT / "JPEGImages/2008_000001.jpg")
    recipe = open_voc2012(voc, "test", "scribbles")
    sample = recipe.sample("2008_000001")
    assert not recipe.is_annotated()
    assert (sample.semantic == 254).all() and sample.tags is None and sample.mask is None


def test_only_what_the_labels_need_has_to_be_there(voc):
    for path in (voc / SCRIBBLES).iterdir():
        path.unlink()
    assert packed(voc, "boxes").tags == (CAT,)


def test_a_recipe_travels_between_processes(voc):
    recipe = open_voc2012(voc, "train_aug", "points")
    again = pickle.loads(pickle.dumps(recipe))
    assert np.array_equal(again.sample(ONLY_SBD).semantic, recipe.sample(ONLY_SBD).semantic)


def test_the_command_packs_a_split_that_verifies(voc, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [str(voc), "--labels", "scribbles", "--split", "train_aug", "--out", str(out)]
    assert main(["pack", "voc2012", *arguments]) == 0
    printed = capsys.readouterr()
    assert "2 images here, 10582 in the published set" in printed.err and "tvmonitor" in printed.out
    manifest = read_manifest(out)
    assert (manifest.name, manifest.samples, manifest.classes) == ("voc2012-train_aug", 2, CLASSES)
    assert manifest.background == 0 and verify(out)["problems"] == []


@pytest.mark.parametrize(
    ("labels", "outcome"),
    [("clicks", "--boxes does nothing: "), ("boxes", "--point-radius does nothing: ")],
)
def test_the_command_tells_options_that_concern_no_label(voc, tmp_path, capsys, labels, outcome):
    asked = ["--labels", labels, "--split", "train", "--out", str(tmp_path / "out")]
    assert main(["pack", "voc2012", str(voc), *asked, "--boxes", "geometry", "--point-radius", "2"]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "nothing: " in line]
    assert line.startswith(outcome)


def test_the_help_says_what_to_download_from_where(capsys):
    assert main(["pack", "voc2012", "--help"]) == 0
    printed = capsys.readouterr().out
    for text in ("host.robots.ox.ac.uk", "benchmark.tgz", "jifengdai.org", "whats_the_point", "examples:"):
        assert text in printed


def break_list(voc):
    with (voc / DEVKIT / "ImageSets/Segmentation/train.txt").open("a") as file:
        file.write("2099_000001\n2099_000002\n")


def remove_mask(voc):
    os.remove(voc / DEVKIT / f"SegmentationClass/{TRAIN}.png")


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


XML, MAT = f"{DEVKIT}/Annotations/{TRAIN}.xml", f"{SBD}/cls/{ONLY_SBD}.mat"
BAD = {
    "unknown split": ("masks", "dev", lambda voc: None, r"no such split \(got dev\).*train_aug"),
    "unknown labels": ("dots", "train", lambda voc: None, "no labels of this kind.*clicks"),
    "list naming missing images": (
        "masks",
        "train",
        break_list,
        r"train\.txt: 2 of its 3.*2099_000001\.jpg.*tar",
    ),
    "no archive": (
        "masks",
        "train",
        lambda voc: os.rename(voc / "VOCdevkit", voc / "x"),
        "VOC2012: no such folder.*tar",
    ),
    "no SBD": (
        "masks",
        "train_aug",
        lambda voc: os.rename(voc / SBD, voc / "x"),
        r"dataset: no such folder.*tgz",
    ),
    "half of SBD": (
        "masks",
        "train_aug",
        lambda voc: os.remove(voc / MAT),
        r"1 of 2 images have no masks.*\.mat.*tgz",
    ),
    "half of the scribbles": (
        "points",
        "train",
        lambda voc: os.remove(voc / SCRIBBLES / f"{TRAIN}.xml"),
        r"have no points.*\.zip",
    ),
    "no clicks": (
        "clicks",
        "train",
        lambda voc: os.remove(voc / CLICKS),
        r"main\.json: no such file.*put What's",
    ),
    "truncated clicks": (
        "clicks",
        "train",
        lambda voc: truncate(voc / CLICKS),
        "cannot be read as JSON.*download",
    ),
    "other clicks": (
        "clicks",
        "train",
        lambda voc: write_json(voc / CLICKS, {TRAIN: [[1, 2]]}),
        "not a list of clicks",
    ),
    "clicks of half a class": (
        "clicks",
        "train",
        lambda voc: write_json(voc / CLICKS, {TRAIN: [{"x": 3, "y": 4, "cls": 8.5}]}),
        r"image 2007_000032: not a list of clicks \(got .*class 8\.5",
    ),
    "truncated image": (
        "tags",
        "train",
        lambda voc: truncate(voc / DEVKIT / f"JPEGImages/{TRAIN}.jpg"),
        r"032\.jpg: cannot be decoded",
    ),
    "truncated .mat": (
        "masks",
        "train_aug",
        lambda voc: truncate(voc / MAT),
        r"\.mat: cannot be read as a MATLAB.*again",
    ),
    "empty .mat": (
        "masks",
        "train_aug",
        lambda voc: (voc / MAT).write_bytes(b""),
        r"\.mat: cannot be read as a MATLAB",
    ),
    "text as .mat": (
        "masks",
        "train_aug",
        lambda voc: (voc / MAT).write_text("no" * 99),
        "cannot be read as a MATLAB",
    ),
    ".mat of instances": (
        "masks",
        "train_aug",
        lambda voc: write_sbd_mask(voc / MAT, sbd_mask(), "GTinst"),
        "GTcls.*GTinst.*dataset/cls",
    ),
    ".mat of numbers": (
        "masks",
        "train_aug",
        lambda voc: savemat(voc / MAT, {"GTcls": np.eye(3)}),
        "no Segmentation",
    ),
    ".mat of other classes": (
        "masks",
        "train_aug",
        lambda voc: write_sbd_mask(voc / MAT, sbd_mask() + 20),
        r"not a class of VOC \(got 32\)",
    ),
    ".mat of another size": (
        "masks",
        "train_aug",
        lambda voc: write_sbd_mask(voc / MAT, sbd_mask()[:9]),
        r"002\.jpg.*40×30 and 40×9",
    ),
    "truncated XML": (
        "tags",
        "train",
        lambda voc: truncate(voc / XML),
        r"032\.xml: cannot be read as XML.*again",
    ),
    "scribbles as boxes": (
        "boxes",
        "train",
        lambda voc: write_scribbles(voc / XML, ("cat", [(1, 1)])),
        r"032\.xml: no list of objects",
    ),
    "a page as boxes": (
        "tags",
        "train",
        lambda voc: (voc / XML).write_text("<html><body>not found</body></html>"),
        r"032\.xml: no list of objects \(got <html>\)",
    ),
    "a box with swapped corners": (
        "boxes",
        "train",
        lambda voc: write_objects(voc / XML, ("dog", (30, 20, 11, 9))),
        r"032\.xml: a box is empty: its corners are swapped .*\(got \('dog', 30\.0, 20\.0, 11\.0, 9\.0\)\)",
    ),
    "a box beyond the image": (
        "boxes",
        "train",
        lambda voc: write_objects(voc / XML, ("dog", (30, 20, 90, 30))),
        r"032\.xml: a box reaches beyond the image .*90.*the image is 40×30",
    ),
    "a box outside the image": (
        "boxes",
        "train",
        lambda voc: write_objects(voc / XML, ("dog", (70, 20, 90, 30))),
        r"032\.xml: a box lies outside the image",
    ),
    "boxes of shares": (
        "boxes",
        "train",
        lambda voc: write_objects(voc / XML, ("dog", (0.1, 0.2, 0.5, 0.9))),
        r"032\.xml: boxes are shares of the image \(0\.\.1\), not pixels",
    ),
    "objects of another size": (
        "tags",
        "train",
        lambda voc: (
            Image.fromarray(image(0)).resize((20, 15)).save(voc / DEVKIT / f"JPEGImages/{TRAIN}.jpg")
            or remove_mask(voc)
        ),
        r"032\.xml: drawn on an image of another size \(got 40×30, the image is 20×15\)",
    ),
    "XML of another class": (
        "tags",
        "train",
        lambda voc: write_objects(voc / XML, ("yeti", (1, 1, 2, 2))),
        r"no class of VOC.*got yeti",
    ),
    "XML without names": (
        "tags",
        "train",
        lambda voc: (voc / XML).write_text("<annotation><object/></annotation>"),
        "<name>.*got nothing",
    ),
    "XML without boxes": (
        "boxes",
        "train",
        lambda voc: (voc / XML).write_text("<annotation><object><name>cat</name></object></annotation>"),
        "<bndbox>",
    ),
    "XML with a box of words": (
        "boxes",
        "train",
        lambda voc: (voc / XML).write_text((voc / XML).read_text().replace(">11<", ">nan<", 1)),
        r"032\.xml: <xmin> of a <bndbox> is no number \(got nan\)",
    ),
    "scribbles without classes": (
        "scribbles",
        "train",
        lambda voc: write_scribbles(voc / SCRIBBLES / f"{TRAIN}.xml", ("", [(1, 1)])),
        "<tag>",
    ),
    "boxes as scribbles": (
        "scribbles",
        "train",
        lambda voc: write_objects(voc / SCRIBBLES / f"{TRAIN}.xml"),
        "holds no scribble",
    ),
    "scribbles of another size": (
        "scribbles",
        "train",
        lambda voc: write_scribbles(voc / SCRIBBLES / f"{TRAIN}.xml", ("cat", [(1, 1)]), width=41),
        "41×30.*40×30",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_with_what_to_do(voc, case):
    labels, split, spoil, seen = BAD[case]
    spoil(voc)
    with pytest.raises(DataError, match=seen) as raised:
        list(open_voc2012(voc, split, labels).samples())
    assert raised.value.remedy


def test_a_mistake_is_one_line_of_the_command(voc, tmp_path, capsys):
    arguments = [str(voc), "--labels", "dots", "--split", "train", "--out", str(tmp_path / "out")]
    assert main(["pack", "voc2012", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
