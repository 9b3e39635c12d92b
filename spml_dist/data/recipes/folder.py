"""The `folder` recipe: one's own images and annotations, in the folder layout of shards/README.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from spml_dist.data.annotations.mixture import merge_boxes, merge_labels, merge_tags, unlisted
from spml_dist.data.format.keys import same_letters
from spml_dist.data.recipes.annotation_kinds import (
    MASKS,
    AnnotationKind,
    Classes,
    JsonEntries,
    LabelMaps,
    MarkSettings,
    keypoints,
    open_kind,
    open_masks,
    read_by_image,
)
from spml_dist.data.recipes.folder_layout import read_background, read_classes, read_ids, read_split
from spml_dist.data.recipes.image_files import find_image
from spml_dist.data.recipes.recipe import Annotation, Recipe, require_size
from spml_dist.errors import ConfigError, DataError


@dataclass(frozen=True)
class AnnotationFolder:
    """The annotations of a folder, of one kind or several."""

    root: Path
    kinds: dict[str, AnnotationKind]
    """by their names; on a pixel the first one decides"""
    masks: LabelMaps
    only: dict[str, tuple[str, ...]] | None = field(default=None, repr=False)
    """kinds that count, by image id: none for an id that is not there; None = all kinds, for every image"""

    def image(self, image_id: str) -> Path:
        """The image file. Raises DataError if there is none, or more than one."""
        return find_image(self.root / "images", image_id)

    def kinds_of(self, image_id: str) -> tuple[str, ...]:
        """The kinds of annotation that the image has."""
        allowed = self.kinds if self.only is None else self.only.get(same_letters(image_id), ())
        return tuple(name for name, kind in self.kinds.items() if name in allowed and kind.has(image_id))

    def annotation(self, image_id: str, shape: tuple[int, int]) -> Annotation:
        """What the image's kinds tell together, and its mask for evaluation.

        Weak labels never look at masks/: what nobody annotated stays unlabelled, ignored pixels included.
        """
        names, path = self.kinds_of(image_id), self.image(image_id)
        by_kind = [self.kinds[name].read(image_id, shape) for name in names]
        for name, labels in zip(names, by_kind, strict=True):
            require_size(path, shape, labels.semantic, name)
        semantic, contradicted = merge_labels(by_kind)
        return Annotation(
            semantic=semantic,
            tags=merge_tags(by_kind),
            mask=self.masks.read(image_id, shape).semantic if self.masks.has(image_id) else None,
            kinds=names,
            boxes=merge_boxes(by_kind),
            contradicted=contradicted,
            unlisted=unlisted(by_kind),
        )

    def missing_kinds(self, ids: Iterable[str]) -> set[str]:
        """The kinds that none of the images has."""
        missing = set(self.kinds)
        for image_id in ids:
            with suppress(OSError):  # an id that is no file's name, say: named when that image is read
                missing -= set(self.kinds_of(image_id))
            if not missing:
                break
        return missing


def open_folder(
    root: str | Path,
    split: str,
    labels: str,
    marks: MarkSettings | None = None,
    labels_from: str | Path | None = None,
) -> Recipe:
    """A split of a folder with the kinds of annotation `labels`: `masks`, names under weak/, commas between.

    On a pixel the kind that `labels` names first decides. labels_from: JSON file {image id: [kind, ...]}:
    each image has only these of the kinds, none if it is left out. Raises DataError for a folder, split, kind
    or image id that is not there, naming those that are.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", None, "give a folder in the layout of shards/README.md")
    if not (root / "images").is_dir():
        remedy = "put the images there, in the layout of shards/README.md"
        raise DataError(f"{root / 'images'}: no such folder", None, remedy)
    names = read_classes(root)
    classes = Classes(len(names), read_background(root, names))
    ids = read_split(root, split)
    kinds = _open_kinds(root, labels, classes, marks or MarkSettings())
    only = None if labels_from is None else _read_only(Path(labels_from), root, ids, tuple(kinds))
    folder = AnnotationFolder(root, kinds, open_masks(root, classes), only)
    missing = folder.missing_kinds(ids)
    annotated = missing != set(kinds)
    # Where no image is annotated at all, the recipe says so itself.
    notes = [f"{split}: no image has {name} annotations" for name in kinds if name in missing and annotated]
    return Recipe(
        name=root.resolve().name,
        split=split,
        labels=",".join(kinds),
        classes=names,
        background=classes.background,
        ids=ids,
        image=folder.image,
        annotation=folder.annotation,
        annotated=annotated,
        forms=frozenset(kind.read_entry.__name__ for kind in kinds.values() if isinstance(kind, JsonEntries)),
        notes=(*_doubts(root, {**kinds, MASKS: folder.masks}, ids), *notes),
    )


def _doubts(root: Path, kinds: dict[str, AnnotationKind], ids: tuple[str, ...]) -> Iterator[str]:
    """What to say of each kind: annotations without an image in a split, maps of 0 and 255 alone."""
    for name, kind in kinds.items():
        if isinstance(kind, LabelMaps) and (doubt := kind.doubt(name, ids)):
            yield doubt
        if isinstance(kind, JsonEntries):
            source, names, suffix, such = kind.path.name, set(kind.entries), "", "ids are in no split"
        else:
            source, suffix, such = name, ".png", "files are no ID.png of a split"
            names = set(map(same_letters, kind.files()))
        strange = _in_no_split(names, root, ids, suffix)
        if strange:
            yield f"{source}: {len(strange)} of its {len(names)} {such}, e.g. {', '.join(strange[:3])}"


def _in_no_split(names: set[str], root: Path, ids: tuple[str, ...], suffix: str = "") -> list[str]:
    """Those of the names, in the form of `same_letters`, that are no id of this split or another one."""
    strange = names - {same_letters(image_id) + suffix for image_id in ids}
    # The other splits are read only where this one does not explain every name.
    return sorted(strange - {same_letters(each) + suffix for each in read_ids(root)}) if strange else []


def _open_kinds(root: Path, labels: str, classes: Classes, marks: MarkSettings) -> dict[str, AnnotationKind]:
    names = [name.strip() for name in labels.split(",")]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError("labels: a kind is there twice", ", ".join(twice), "name every kind once")
    kinds = {name: open_kind(root, name, classes, marks) for name in names}
    for name in marks.heat_maps:
        kind = kinds.get(name)
        if not isinstance(kind, JsonEntries) or kind.read_entry is not keypoints:
            remedy = f"name kinds of points among the labels {', '.join(kinds)}"
            raise ConfigError("heat maps: not a kind of points that is packed", name, remedy)
    return kinds


def _read_only(
    path: Path, root: Path, ids: tuple[str, ...], kinds: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Kinds by image id. Ids may be of any split of the folder, so that one file does for all."""
    entries = read_by_image(path, "[KIND, ...]")
    if strange := _in_no_split(set(entries), root, ids):
        raise DataError(
            f"{path}: {len(strange)} of its {len(entries)} image ids are in no split of {root}",
            ", ".join(strange[:3]),
            "write the ids as the split files do",
        )
    for image_id, chosen in entries.items():
        if not isinstance(chosen, list) or not all(isinstance(name, str) for name in chosen):
            raise DataError(f"{path}, image {image_id}: not a list of kinds", chosen, "write [kind, ...]")
        unknown = [name for name in chosen if name not in kinds]
        if unknown:
            raise DataError(
                f"{path}, image {image_id}: not among the kinds that are packed",
                ", ".join(unknown),
                f"choose from {', '.join(kinds)}, or add it to the labels",
            )
    return {image_id: tuple(chosen) for image_id, chosen in entries.items()}
