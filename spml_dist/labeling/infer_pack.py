"""A pack of images labelled by a trained CAM classifier, into a new pack."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spml_dist import __version__
from spml_dist.config import Config, load
from spml_dist.data.format.compatibility import first_difference
from spml_dist.data.format.manifest import Manifest, read_manifest
from spml_dist.data.pack.pack import PackDescription, pack_parts
from spml_dist.data.stream.shard_cache import ShardCache
from spml_dist.errors import ConfigError, DataError, RunError
from spml_dist.inference.device import resolve_device
from spml_dist.labeling import seed_quality, seeds_note
from spml_dist.labeling.cams import KIND, CamParts
from spml_dist.model import export
from spml_dist.run_folder import MODEL_WEIGHTS, RunFolder


def infer_pack(
    run: Path, shards: str, out: str, overrides: Sequence[str] = (), workers: int = 1
) -> dict[str, Any]:
    """Label a pack's images with seeds, and measure them.

    run: folder of a trained CAM classifier; shards, out: folders or addresses of the pack to label and of the
    new one; overrides: changes to the run's `cam.*` and `engine.device`; workers: processes side by side.
    The same call goes on where it was interrupted.

    Returns the contents of OUT/seeds.json: what the seeds come from, and the numbers of
    `seed_quality.measure`. Raises RunError, DataError or ConfigError for a run, a pack or settings that
    cannot be used, before anything is written.
    """
    config = _settings(run, overrides)
    if Path(shards).resolve() == Path(out).resolve():
        raise DataError(f"{out}: the pack that is read", None, "give another --out")
    manifest = read_manifest(shards)
    if KIND in manifest.counts.kinds:
        remedy = "label the pack that it was made from"
        raise DataError(f"{shards}: has seeds of CAM already", None, remedy)
    parts = _parts(run, shards, config, manifest)
    note = {"run": config.name, "shards": str(shards), "cam": config.cam.model_dump(mode="json")}
    # The note is written twice: a call that was cut off while it measured finds its pack and measures alone.
    note |= _write_pack(parts, out, _description(manifest), workers)
    result = note | seed_quality.measure(out, KIND, cache=parts.cache)
    seeds_note.write(out, result)
    return result


def _settings(run: Path, overrides: Sequence[str]) -> Config:
    """The run's configuration, of which cam.* and the device may change."""
    if not run.is_dir():
        raise RunError(f"{run}: no such run folder", None, "give the folder that `spml-dist cam train` wrote")
    for text in overrides:
        if not text.startswith(("cam.", "engine.device=")) or text.startswith("cam.steps="):
            key = text.partition("=")[0]
            remedy = "the run is trained: only cam.* and engine.device"
            raise ConfigError(f"{key} cannot change", None, remedy)
    return load(RunFolder(run).config, overrides)


def _parts(run: Path, shards: str, config: Config, manifest: Manifest) -> CamParts:
    """What labels the pack, once the network is known to be one that can."""
    folder = RunFolder(run.resolve()).export
    _, info = export.load(folder, "cam")
    if config.cam.mirror and config.stream.mirror_swaps:
        remedy = "stream.mirror_swaps says that classes change places in a mirror: set it to false"
        raise ConfigError("cam.mirror", "true", remedy)
    difference = first_difference(manifest.classes, manifest.background, info["classes"], info["background"])
    if difference:
        what = f"{shards}: classes are not those that {run} was trained for"
        raise DataError(what, difference, "train the CAM classifier on a pack of the same classes")
    stream = config.stream
    return CamParts(
        export=folder,
        digest=hashlib.sha256((folder / MODEL_WEIGHTS).read_bytes()).hexdigest(),
        shards=str(shards),
        manifest=manifest,
        settings=config.cam,
        device=resolve_device(config.engine.device),
        cache=ShardCache(stream.cache, stream.cache_gb, stream.retry_seconds),
    )


def _description(manifest: Manifest) -> PackDescription:
    return PackDescription(
        f"{manifest.name}-{KIND}",
        manifest.split,
        f"{manifest.labels},{KIND}",
        manifest.classes,
        manifest.background,
        manifest.regions,
    )


def _write_pack(parts: CamParts, out: str, description: PackDescription, workers: int) -> dict[str, Any]:
    """Write the pack, unless this very call has and was cut off later. Returns what its note has of it."""
    fingerprint = _fingerprint(parts)
    source = seeds_note.digest([fingerprint, asdict(description)])
    sizes = [shard.samples for shard in parts.manifest.shards]
    written = seeds_note.left_unmeasured(out, source) or pack_parts(
        parts, sizes, out, description, workers=workers, fingerprint=fingerprint
    )
    note = {
        "made_by": source,
        "manifest": seeds_note.digest(asdict(written)),
        "rejected": written.rejected,
    }
    seeds_note.write(out, note)
    return note


def _fingerprint(parts: CamParts) -> str:
    """Everything that decides what is written, but for the description."""
    tars = [shard.sha256 for shard in parts.manifest.shards]
    return json.dumps([__version__, parts.digest, parts.settings.model_dump(mode="json"), parts.device, tars])
