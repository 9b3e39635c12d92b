"""What a bank's folder holds, which kind of bank wrote it, and what is wrong with a file of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from spml_dist.errors import RunError

MANIFEST = "manifest.json"
"""of a bank of the whole data set"""

PARTITION, INDEX = "shard_{:05d}.safetensors", "index_{:05d}_of_{:05d}.safetensors"
"""files beside it: of a partition, of a rank's inverted file"""

RECENT_ROWS = "rows.safetensors"
"""of a bank of the last steps"""


def another_kind(folder: Path, other: str, candidates: str) -> RunError | None:
    """What is wrong where a bank of the other kind was saved, or None.

    other: the file that only that kind writes; candidates: the configured bank.candidates.
    """
    if not (folder / other).exists():
        return None
    checkpoint = folder.parent
    content = "the whole data set" if other == MANIFEST else "the last steps"
    return RunError(
        f"bank.candidates asks for another bank than {checkpoint} holds, one of {content}",
        candidates,
        f"give bank.candidates as {checkpoint / 'config.yaml'} has it, or another name= to start anew",
    )


def checksum(path: Path) -> str:
    """Digest of a file's bytes, 32 hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def damaged(path: Path, problem: object) -> RunError:
    """A file of a bank that cannot be used."""
    remedy = "put back a copy of it, or name an older checkpoint in latest"
    return RunError(f"{path} cannot be used", problem, remedy)


def unwritable(folder: Path, problem: Exception) -> RunError:
    """A folder that has no room, or none for this user."""
    return RunError(f"{folder} cannot be written", problem, "make room; what was saved before is still there")
