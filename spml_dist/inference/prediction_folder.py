"""A folder of predictions: what it was made by, what is done, and that it is whole.

While images are labelled, `unfinished.jsonl` has a line for each that is done; the last to be written is
`predictions.json`. The same command goes on from either.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from spml_dist.errors import RunError
from spml_dist.files.write import WRITABLE, write_json, write_text

PREDICTIONS, REJECTED, UNFINISHED = "predictions.json", "rejected.jsonl", "unfinished.jsonl"
LOCK = "unfinished.lock"
KINDS = ("mask", "overlay", "confidence")
"""of an entry, the files of its image"""
IMPORTED = ("coco.json", "cvat.zip", "labelstudio.json", "labelstudio.xml")
"""files of `prediction_formats`"""

Entry = dict[str, Any]
"""what is known of a labelled image, plain data; its name is under `image`"""


class PredictionFolder:
    """Predictions in a folder. `made_by`: everything that decides what is written, plain data."""

    def __init__(self, path: Path, made_by: Mapping[str, Any]):
        self.path = path
        self._made_by = dict(made_by)
        self._before: dict[str, Entry] = {}
        self._log: TextIO | None = None
        self._lock = FileLock(path / LOCK)

    def begin(self) -> dict[str, Entry]:
        """Make the folder, or find what an earlier call of the same settings has left: entries by image.

        Raises RunError for a folder that holds anything else, that cannot be written, or into which another
        process labels.
        """
        self._earlier()  # a folder of something else stays as it is
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
            entries = self._before = self._earlier()  # all that another process may have done meanwhile
            lines = [json.dumps(self._made_by), *(_line(entry) for entry in entries.values())]
            # Written anew: what a kill cut off in the middle of a line is gone.
            write_text(self.path / UNFINISHED, "\n".join(lines) + "\n")
            self._log = (self.path / UNFINISHED).open("a", encoding="utf-8")
        except Timeout as error:
            remedy = "wait for it, or choose another --out"
            raise RunError(f"{self.path}: another process labels images into it", None, remedy) from error
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written", error.strerror, WRITABLE) from error
        return entries

    def add(self, entries: Iterable[Entry]) -> None:
        """Note images whose files are all there."""
        assert self._log is not None
        try:
            self._log.write("".join(f"{_line(entry)}\n" for entry in entries))
            self._log.flush()
        except OSError as error:
            raise RunError(f"{self._log.name}: cannot be written", error.strerror, WRITABLE) from error

    def complete(self, entries: Sequence[Entry], rejected: Sequence[Entry]) -> None:
        """Write what the folder holds, in the order of the images that were given."""
        self._close_log()
        lines = [_line(each) for each in rejected]
        path = self.path / REJECTED
        if lines:
            write_text(path, "\n".join(lines) + "\n")
        else:
            path.unlink(missing_ok=True)
        whole = {**self._made_by, "images": list(entries), "rejected": len(rejected)}
        self._remove_stale(entries)
        write_json(self.path / PREDICTIONS, whole, sort_keys=False)
        for name in (UNFINISHED, LOCK):
            (self.path / name).unlink()

    def _remove_stale(self, images: Sequence[Entry]) -> None:
        """Files of images that are no longer among those that are given, and what label tools import if the
        images are not what they were."""
        now = {entry["image"]: entry for entry in images}
        _, listed = self._finished() or ({}, [])
        whole = {entry["image"]: entry for entry in listed}
        gone = [entry for name, entry in (whole | self._before).items() if name not in now]
        stale = [entry[kind] for entry in gone for kind in KINDS if kind in entry]
        for file in stale + (list(IMPORTED) if whole != now else []):
            (self.path / file).unlink(missing_ok=True)

    def close(self) -> None:
        """Let others go on."""
        self._close_log()
        self._lock.release()

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def _earlier(self) -> dict[str, Entry]:
        if not self.path.exists():
            return {}
        if not self.path.is_dir():
            raise RunError(f"{self.path}: no folder", None, "choose another --out")
        for read in (self._unfinished, self._finished):
            if (found := read()) is not None:
                made_by, entries = found
                if made_by != json.loads(json.dumps(self._made_by)):
                    other = ", ".join(key for key in self._made_by if made_by.get(key) != self._made_by[key])
                    what = f"{self.path}: holds predictions by other {other or 'means'}"
                    raise RunError(what, None, "choose another --out, or take the folder away")
                return {entry["image"]: entry for entry in entries}
        if {path.name for path in self.path.iterdir()} - {LOCK}:
            remedy = "choose an empty folder or a new one"
            raise RunError(f"{self.path}: holds other files than predictions", None, remedy)
        return {}

    def _unfinished(self) -> tuple[Any, list[Entry]] | None:
        lines = _text(self.path / UNFINISHED)
        if lines is None:
            return None
        made_by, *entries = [value for line in lines.split("\n") if (value := _parsed(line)) is not None] or [
            None
        ]
        return (made_by or {}), entries

    def _finished(self) -> tuple[Any, list[Entry]] | None:
        text = _text(self.path / PREDICTIONS)
        whole = None if text is None else _parsed(text)
        if not isinstance(whole, dict) or "images" not in whole:
            return None
        return {key: whole.get(key) for key in self._made_by}, whole["images"]


def _line(entry: Entry) -> str:
    return json.dumps(entry, ensure_ascii=False)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path}: cannot be read", error.strerror, "choose another --out") from error


def _parsed(text: str) -> Any:
    """What JSON holds; None for what a kill cut off."""
    try:
        return json.loads(text)
    except ValueError:
        return None
