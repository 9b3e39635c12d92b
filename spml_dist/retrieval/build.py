"""Every segment of some packs, by a run's network, as an index on disk."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from spml_dist import cluster
from spml_dist.config import Config, load
from spml_dist.data.format.compatibility import first_difference
from spml_dist.data.format.manifest import Manifest, read_manifest
from spml_dist.errors import ConfigError, DataError, RunError
from spml_dist.files import address
from spml_dist.inference.device import resolve_device
from spml_dist.progress import progress_bar
from spml_dist.retrieval import layout
from spml_dist.retrieval.assemble import Source, assemble
from spml_dist.retrieval.image_segments import Cut
from spml_dist.retrieval.parts import Finished, Part, PartWriter, part_name, read_part
from spml_dist.retrieval.rows import Pack
from spml_dist.run_folder import MODEL_INFO, MODEL_WEIGHTS, RunFolder


@dataclass(frozen=True)
class Changes:
    """What a build did, in pictures, and how large the index is."""

    infos: dict[str, Any]
    added: int
    replaced: int
    removed: int
    """pictures of a pack given again that it no longer holds"""
    unreadable: tuple[str, ...]
    """ids of images that do not decode: they are in no row"""


def build_index(
    run: str | Path,
    packs: Sequence[str] = (),
    out: str | Path = "index",
    *,
    workers: int = 1,
    add: bool = False,
    kind: str | None = None,
    device: str = "auto",
    progress: bool = False,
) -> Changes:
    """Index every segment of the packs into the folder `out`; the same bytes for any number of workers.

    run: folder with a trained network; packs: packed folders or addresses, () = the run's data.train; add:
    keep what the index holds of other pictures; kind: one of `vector_index.KINDS`, None = by the number of
    rows. What an interrupted build has finished is taken over.
    Raises RunError for a run without a network, for a folder in which another process builds, and with `add`
    for an index by another network; DataError for packs of other classes or of one name; ConfigError for
    fewer than one worker.
    """
    if workers < 1:
        raise ConfigError("--workers", workers, "give at least 1")
    folder, out = RunFolder(Path(run)), Path(out)
    config, facts = load_run(folder)
    packed = read_packs(packs or [config.data.train], facts["classes"], facts["background"])
    device = resolve_device(device)
    with layout.building(out) as unfinished:
        old = layout.read_infos(out) if add and (out / layout.INFOS).exists() else None
        if add:
            require_addable(out, old, facts)
        parts = [
            Part(number, shard, part_name(facts["model"], cut_of(facts), each.sha256))
            for number, (_, manifest) in enumerate(packed)
            for shard, each in enumerate(manifest.shards)
        ]
        folders = tuple(pack.folder for pack, _ in packed)
        export = folder.export.resolve()
        writer = PartWriter(export, device, cut_of(facts), folders, unfinished)
        written = _write(writer, parts, workers, progress)
        unreadable = tuple(name for each in written for name in each.unreadable)
        new = Rows([pack for pack, _ in packed], partial(_sources, unfinished, written))
        pictures = new.pictures()
        infos, replaced, removed = replace_rows(
            out, unfinished, old, new, facts | {"unreadable": unreadable}, kind
        )
    return Changes(infos, pictures - replaced, replaced, removed, unreadable)


@dataclass(frozen=True)
class Rows:
    """Rows on their way into an index."""

    packs: list[Pack]
    sources: Callable[[], Iterable[Source]]

    def keys(self) -> set[tuple[str, str]]:
        """(pack, key) of every picture."""
        return {
            (self.packs[pack].name, key)
            for _, table in self.sources()
            for pack, key in zip(table["pack"].to_pylist(), table["key"].to_pylist(), strict=True)
        }

    def pictures(self) -> int:
        """How many pictures they come from."""
        return len(self.keys())


def replace_rows(
    out: Path,
    unfinished: Path,
    old: dict[str, Any] | None,
    new: Rows,
    facts: dict[str, Any],
    kind: str | None,
) -> tuple[dict[str, Any], int, int]:
    """Put new rows after those that stay of an old index: (infos, pictures replaced, pictures removed)."""
    kept, replaced, removed = _kept(out, old, new) if old else (Rows([], list), 0, 0)
    packs, sources = _together(kept, new)
    counts = [(len(vectors), vectors.shape[1]) for vectors, _ in sources()]
    rows = sum(count for count, _ in counts)
    if not rows:
        raise DataError(f"{out}: no segment to index", None, "give packs with images")
    whole = unfinished / layout.WHOLE
    shutil.rmtree(whole, ignore_errors=True)
    infos = assemble(whole, sources, rows, counts[0][1], packs, facts["classes"], facts, kind)
    layout.finish(out)
    return infos, replaced, removed


def load_run(run: RunFolder) -> tuple[Config, dict[str, Any]]:
    """A run's configuration, and what an index says of its network. Raises RunError without a network."""
    if not run.config.exists():
        raise RunError(f"{run.path}: no run folder", None, "give the folder that `spml-dist train` wrote")
    config = load(run.config)
    try:
        info = json.loads((run.export / MODEL_INFO).read_text(encoding="utf-8"))
        with (run.export / MODEL_WEIGHTS).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as problem:
        remedy = "finish the training: the same command resumes it"
        raise RunError(f"{run.export}: no trained model", problem, remedy) from problem
    settings = config.evaluation
    return config, {
        "run": str(run.path.resolve()),
        "model": digest,
        "step": info["step"],
        "classes": list(info["classes"]),
        "background": info["background"],
        "cut": {
            "longer_side": settings.longer_side,
            "grid": list(settings.grid),
            "iterations": settings.iterations,
        },
        "lacks": {},
    }


def cut_of(facts: dict[str, Any]) -> Cut:
    """How the images of an index were cut."""
    cut = facts["cut"]
    return Cut(cut["longer_side"], tuple(cut["grid"]), cut["iterations"])


def read_packs(
    folders: Sequence[str], classes: Sequence[str], background: int | None
) -> list[tuple[Pack, Manifest]]:
    """Packs to index. Raises DataError for classes that are not the network's, and for two of one name."""
    packs: list[tuple[Pack, Manifest]] = []
    for folder in folders:
        manifest = read_manifest(folder)
        if manifest.classes:
            difference = first_difference(manifest.classes, manifest.background, classes, background)
            if difference:
                remedy = "give packs of the run's classes"
                raise DataError(f"{folder}: classes are not those of the network", difference, remedy)
        place = folder if address.is_remote(folder) else str(Path(folder).resolve())
        urls, digests = (
            tuple(getattr(shard, name) for shard in manifest.shards) for name in ("url", "sha256")
        )
        pack = Pack(manifest.name, place, urls, digests)
        if other := next((each for each, _ in packs if each.name == pack.name), None):
            remedy = "pack one of them under another --name"
            raise DataError(f"{folder}: a pack of the name of {other.folder}", pack.name, remedy)
        packs.append((pack, manifest))
    return packs


def require_addable(out: Path, old: dict[str, Any] | None, facts: dict[str, Any]) -> None:
    """Raise RunError unless there is an index that takes these rows."""
    if old is None:
        raise RunError(f"{out}: no index to add to", None, "leave --add away")
    for name, what in (("model", "network"), ("cut", "evaluation settings"), ("lacks", "kind of rows")):
        if old[name] != facts[name]:
            remedy = f"build a new index, or add by the run {old['run']}"
            raise RunError(f"{out}: built by another {what}", old[name], remedy)
    layout.require_whole(out, old)


def _write(writer: PartWriter, parts: Sequence[Part], workers: int, progress: bool) -> list[Finished]:
    """All parts, in order; they come as workers finish."""
    different = list({part.name: part for part in parts}.values())  # two packs may hold one shard
    done: dict[str, Finished] = {}
    with closing(cluster.spread(writer, different, workers)) as results:
        for each in progress_bar(results, "indexing", len(different), unit="shards", shown=progress):
            done[each.part.name] = each
    return [replace(done[part.name], part=part) for part in parts]


def _sources(unfinished: Path, written: Sequence[Finished]) -> Iterator[Source]:
    for each in written:
        table = read_part(unfinished / f"{each.part.name}.arrow")
        # One shard may lie in two packs: which it is in, and where, is no matter of its content.
        for name, value in (("pack", each.part.pack), ("shard", each.part.shard)):
            at, kind = table.schema.get_field_index(name), table.schema.field(name)
            table = table.set_column(at, kind, pa.array(np.full(len(table), value), kind.type))
        yield np.load(unfinished / f"{each.part.name}.npy", mmap_mode="r"), table


def _kept(out: Path, old: dict[str, Any], new: Rows) -> tuple[Rows, int, int]:
    """The rows of an index that stay, pictures that new ones replace, and those that a pack lost."""
    packs = [pack_of(each) for each in old["packs"]]
    keys, folders = new.keys(), {pack.folder for pack in new.packs}
    vectors = np.load(out / layout.VECTORS, mmap_mode="r")
    table = pa.ipc.open_file(pa.memory_map(str(out / layout.ROWS))).read_all()
    replaced: set[tuple[str, str]] = set()
    removed: set[tuple[str, str]] = set()
    stays = np.ones(len(table), bool)
    row = 0
    for batch in table.to_batches():
        for pack, key in zip(batch["pack"].to_pylist(), batch["key"].to_pylist(), strict=True):
            picture = packs[pack].name, key
            if picture in keys:
                replaced.add(picture)
            elif packs[pack].folder in folders:
                removed.add(picture)
            stays[row] = picture not in keys and packs[pack].folder not in folders
            row += 1

    def sources() -> Iterator[Source]:
        first = 0
        for batch in table.to_batches():
            mask = stays[first : first + len(batch)]
            yield (
                vectors[first : first + len(batch)][mask],
                pa.Table.from_batches([batch]).filter(pa.array(mask)),
            )
            first += len(batch)

    return Rows(packs, sources), len(replaced), len(removed)


def pack_of(facts: dict[str, Any]) -> Pack:
    """A pack as index_infos.json has it."""
    return Pack(facts["name"], facts["folder"], tuple(facts["shards"]), tuple(facts["digests"]))


def _together(kept: Rows, new: Rows) -> tuple[list[Pack], Callable[[], Iterator[Source]]]:
    """Kept rows, then new ones, over one list of packs: that of each pack is its newest."""
    newest = {(pack.name, pack.folder): pack for pack in [*kept.packs, *new.packs]}
    packs, places = list(newest.values()), {place: number for number, place in enumerate(newest)}

    def sources() -> Iterator[Source]:
        for rows in (kept, new):
            numbers = np.array([places[pack.name, pack.folder] for pack in rows.packs], np.int16)
            for vectors, table in rows.sources():
                at, field = table.schema.get_field_index("pack"), table.schema.field("pack")
                yield vectors, table.set_column(at, field, pa.array(numbers[table["pack"].to_numpy()]))

    return packs, sources
