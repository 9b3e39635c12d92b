"""Pseudo-labels for a whole pack: each stage of labelers writes a pack, which the next stage reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spml_dist import __version__
from spml_dist.config import Config, expanded
from spml_dist.data.format.manifest import Manifest, read_manifest
from spml_dist.errors import ConfigError
from spml_dist.labeling import pack_note
from spml_dist.labeling.cams import CamSeeds
from spml_dist.labeling.infer_pack import CHANGEABLE, cam_labeler, deciding, shard_cache, trained_config
from spml_dist.labeling.labeler import ByLabels, Labeler
from spml_dist.labeling.labelled_pack import LabelledPack, require_classes, require_place
from spml_dist.labeling.labelled_parts import PackParts
from spml_dist.labeling.neighbour_votes import NeighbourVotes
from spml_dist.labeling.network import TrainedSegmenter, trained_segmenter
from spml_dist.labeling.segment_index import LabelledSegments, SegmentIndex, segment_index
from spml_dist.labeling.stages import AUTO, Stage, stages
from spml_dist.labeling.walks import CamWalk, SoftmaxWalk
from spml_dist.model import export
from spml_dist.run_folder import RunFolder

CLASSES = "label a pack of the classes that it was trained for"


def label_pack(
    run: Path,
    shards: str,
    out: str,
    by: str | Sequence[Stage] = AUTO,
    cam: Path | None = None,
    index: str | None = None,
    overrides: Sequence[str] = (),
    workers: int = 1,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Label a pack stage by stage; yields (place, contents of its labeling.json) of each as it is done.

    run: folder of a trained segmenter; shards, out: folders or addresses of the pack to label and of the new
    one; the packs of earlier stages lie beside it, OUT-STAGE. by: as `stages`, or what that returns; cam:
    folder of a run of `spml-dist cam train`; index: the pack whose labelled segments are the neighbours, by
    default the one that the stage labels; overrides: changes to `labeling.*`, `evaluation.*` and
    `engine.device` of the run, and to `cam.*` of the other; workers: processes side by side. The same call
    goes on where it was interrupted, and labels nothing that is labelled already.

    Raises RunError, DataError or ConfigError for a run, a pack or settings that cannot be used, before
    anything is written.
    """
    manifest, overrides = read_manifest(shards), expanded(overrides)
    networks = _networks(run, shards, manifest, cam, overrides)
    plan = stages(by, manifest, cam is not None) if isinstance(by, str) else list(by)
    if index and not any("neighbours" in stage.kinds for stage in plan):
        remedy = "add +neighbours to --by, or leave --index out"
        raise ConfigError("--index without neighbours", index, remedy)
    if index:
        require_classes(index, read_manifest(index), run, networks.info, "give another pack as --index")
    places = [*(f"{out.rstrip('/')}-{stage.name}" for stage in plan[:-1]), out]
    for place in places:
        require_place(shards, place)
        if index:
            require_place(index, place)
    for stage, source, place in zip(plan, (shards, *places), places, strict=False):
        yield place, _label(networks, stage, source, place, index or source, workers)


@dataclass(frozen=True)
class _Networks:
    """What labels, and what is known of it."""

    run: Path
    config: Config
    info: dict[str, Any]
    segmenter: TrainedSegmenter
    cams: CamSeeds | None


def _networks(
    run: Path, shards: str, manifest: Manifest, cam: Path | None, overrides: Sequence[str]
) -> _Networks:
    of_cam = [text for text in overrides if cam and text.startswith("cam.")]
    own = [text for text in overrides if text not in of_cam]
    config = trained_config(run, own, ("labeling.", "evaluation.", "engine.device="))
    _, info = export.load(RunFolder(run).export)
    require_classes(shards, manifest, run, info, CLASSES)
    cams = None
    if cam:
        device = [text for text in own if text.startswith("engine.device=")]
        cams = cam_labeler(cam, trained_config(cam, [*of_cam, *device], CHANGEABLE), shards, manifest)
        cams = replace(cams, least=config.labeling.min_confidence)
    return _Networks(run, config, info, trained_segmenter(run, config, info), cams)


def _label(
    networks: _Networks, stage: Stage, source: str, place: str, index: str, workers: int
) -> dict[str, Any]:
    """One stage, unless it is done."""
    cache, settings = shard_cache(networks.config), networks.config.labeling
    parts = PackParts(source, read_manifest(source), cache)
    read = None
    if "neighbours" in stage.kinds:
        read = LabelledSegments(PackParts(index, read_manifest(index), cache), networks.segmenter, settings)
    key = None if read is None else _index_key(read)
    pack = LabelledPack(parts, place, stage.kinds, pack_note.LABELS, _deciding(networks, stage, key))
    if found := pack.finished():
        return found
    path = None if key is None else RunFolder(networks.run.resolve()).segments(key)
    segments = None if read is None or path is None else segment_index(read, path, workers)
    note = {
        "run": networks.config.name,
        "step": networks.info["step"],
        "shards": source,
        "by": stage.name,
        "labeling": settings.model_dump(mode="json"),
        "evaluation": networks.config.evaluation.model_dump(mode="json"),
        "cam": None if networks.cams is None else networks.cams.settings.model_dump(mode="json"),
        "index": index if "neighbours" in stage.kinds else None,
        "unreachable": _unreachable(parts.manifest, segments),
    }
    result = pack.write(_labeler(networks, stage, segments), note, workers)
    if path:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # another pack is being labelled by segments
            path.parent.rmdir()
    return result


def _labeler(networks: _Networks, stage: Stage, index: SegmentIndex | None) -> Labeler:
    settings, segmenter, cams = networks.config.labeling, networks.segmenter, networks.cams
    known: dict[str | None, Labeler | None] = {None: None, "walk": SoftmaxWalk(segmenter, settings)}
    if cams:
        known |= {"cam": cams, "cam-walk": CamWalk(segmenter, settings, cams)}
    if index:
        known["neighbours"] = NeighbourVotes(segmenter, settings, index)
    return ByLabels(known[stage.annotated], known[stage.tagged])


def _deciding(networks: _Networks, stage: Stage, index: str | None) -> dict[str, Any]:
    """What the labels of a stage depend on."""
    return {
        "stage": asdict(stage),
        "labeling": networks.config.labeling.model_dump(mode="json"),
        "segmenter": _network_key(networks.segmenter),
        "cam": deciding(networks.cams) if networks.cams else None,
        "index": index,
    }


def _network_key(segmenter: TrainedSegmenter) -> dict[str, Any]:
    """A segmenter as plain data, wherever its folder lies."""
    return {name: value for name, value in asdict(segmenter).items() if name != "folder"}


def _index_key(read: LabelledSegments) -> str:
    tars = [shard.sha256 for shard in read.parts.manifest.shards]
    scales = list(read.settings.index_scales)
    return pack_note.digest([__version__, tars, scales, _network_key(read.network)])


def _unreachable(manifest: Manifest, index: SegmentIndex | None) -> dict[str, int]:
    """{class: images} of the classes that tags promise and that no labelled segment has."""
    if index is None:
        return {}
    promised = zip(manifest.classes, manifest.counts.images_tagged, index.rows, strict=True)
    return {name: images for name, images, rows in promised if images and not rows}
