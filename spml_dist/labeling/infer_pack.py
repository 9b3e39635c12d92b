"""A pack of images labelled by a trained CAM classifier, into a new pack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spml_dist.config import Config, expanded, load
from spml_dist.data.format.manifest import Manifest, read_manifest
from spml_dist.data.stream.shard_cache import ShardCache
from spml_dist.errors import ConfigError, DataError, RunError
from spml_dist.inference.device import resolve_device
from spml_dist.labeling import pack_note
from spml_dist.labeling.cams import KIND, CamSeeds
from spml_dist.labeling.labelled_pack import LabelledPack, require_classes, require_place
from spml_dist.labeling.labelled_parts import PackParts
from spml_dist.labeling.network import digest
from spml_dist.model import export
from spml_dist.run_folder import RunFolder

CHANGEABLE = ("cam.", "engine.device=")


def infer_pack(
    run: Path, shards: str, out: str, overrides: Sequence[str] = (), workers: int = 1
) -> dict[str, Any]:
    """Label a pack's images with seeds, and measure them.

    run: folder of a trained CAM classifier; shards, out: folders or addresses of the pack to label and of the
    new one; overrides: changes to the run's `cam.*` and `engine.device`; workers: processes side by side.
    The same call goes on where it was interrupted, and labels nothing that is labelled already.

    Returns the contents of OUT/seeds.json: what the seeds come from, and the numbers of
    `label_quality.measure`. Raises RunError, DataError or ConfigError for a run, a pack or settings that
    cannot be used, before anything is written.
    """
    config = trained_config(run, expanded(overrides), CHANGEABLE)
    manifest = read_manifest(shards)
    require_place(shards, out)
    if KIND in manifest.counts.kinds:
        remedy = "label the pack that it was made from"
        raise DataError(f"{shards}: has seeds of CAM already", None, remedy)
    label = cam_labeler(run, config, shards, manifest)
    note = {"run": config.name, "shards": str(shards), "cam": config.cam.model_dump(mode="json")}
    parts = PackParts(str(shards), manifest, shard_cache(config))
    pack = LabelledPack(parts, out, (KIND,), pack_note.SEEDS, deciding(label))
    return pack.finished() or pack.write(label, note, workers)


def trained_config(run: Path, overrides: Sequence[str], changeable: Sequence[str]) -> Config:
    """The configuration of a run, of which only keys that begin with one of `changeable` may change.

    Raises RunError where there is no such run, ConfigError for any other key.
    """
    if not run.is_dir():
        verb = "cam train" if "cam." in changeable else "train"
        raise RunError(f"{run}: no such run folder", None, f"give the folder that `spml-dist {verb}` wrote")
    for text in overrides:
        if not text.startswith(tuple(changeable)) or text.startswith("cam.steps="):
            key = text.partition("=")[0]
            *others, last = (f"{each}*" if each.endswith(".") else each.rstrip("=") for each in changeable)
            may = f"{', '.join(others)} and {last}"
            raise ConfigError(f"{key} cannot change", None, f"the run is trained: only {may}")
    return load(RunFolder(run).config, overrides)


def cam_labeler(run: Path, config: Config, shards: str, manifest: Manifest) -> CamSeeds:
    """What labels a pack by activation maps, once the network is known to be one that can."""
    folder = RunFolder(run.resolve()).export
    _, info = export.load(folder, "cam")
    if config.cam.mirror and config.stream.mirror_swaps:
        remedy = "stream.mirror_swaps says that classes change places in a mirror: set it to false"
        raise ConfigError("cam.mirror", "true", remedy)
    require_classes(shards, manifest, run, info, "train the CAM classifier on a pack of the same classes")
    return CamSeeds(folder, digest(folder), config.cam, resolve_device(config.engine.device))


def deciding(label: CamSeeds) -> dict[str, Any]:
    """What seeds depend on."""
    settings = label.settings.model_dump(mode="json")
    return {"weights": label.digest, "cam": settings, "device": label.device}


def shard_cache(config: Config) -> ShardCache:
    """Where shards from addresses go, as the run's `stream` says."""
    return ShardCache(config.stream.cache, config.stream.cache_gb, config.stream.retry_seconds)
