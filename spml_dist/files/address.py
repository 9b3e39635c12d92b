"""Files by address: a path, or http(s)://, s3:// and gs:// through fsspec, tried again while they fail.

Where an S3-compatible server is and who asks comes from the standard environment: AWS_ENDPOINT_URL,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from spml_dist.errors import DataError, RunError
from spml_dist.files.retry import persistently

RETRY_SECONDS = 20.0
"""how long a failing address is tried again before there is a run that says how long"""
CONNECT_SECONDS, READ_SECONDS = 10, 30
"""what a server may take to accept a connection, and between two pieces of an answer"""

PACKAGES = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "gs": "gcsfs"}
"""what fsspec needs for each scheme"""
WRITABLE = ("s3", "gs")
"""schemes of which files can be stored"""
Answer = TypeVar("Answer")


def scheme(address: str | Path) -> str:
    """The scheme of an address; empty for a path. `./a:b` is a path, `a:b` is not."""
    return urlsplit(str(address)).scheme


def is_remote(address: str | Path) -> bool:
    """Whether an address is read through the network. Raises DataError for a scheme that is not read.

    That refuses `pipe:`, which readers of tars run in a shell.
    """
    kind = scheme(address)
    if kind and kind not in PACKAGES:
        schemes = ", ".join(f"{name}://" for name in PACKAGES)
        raise DataError(
            f"{address}: this kind of address is not read", f"{kind}:", f"use a path or one of {schemes}"
        )
    return bool(kind)


def join(folder: str | Path, name: str) -> str:
    """The address of a file in a folder, which is the name itself if it is an address or absolute."""
    if scheme(name) or not scheme(folder):
        return name if scheme(name) else str(Path(folder) / name)
    return f"{str(folder).rstrip('/')}/{name}"


def read(address: str, retry_seconds: float) -> bytes:
    """The content of a remote file. Raises DataError as `fetch` does."""
    files, path = _files(address)
    return persistently(address, retry_seconds, lambda: files.cat_file(path))


def fetch(address: str, target: Path, retry_seconds: float) -> None:
    """Copy a remote file to a local path.

    Raises DataError, with the address and what was seen last: at once if the server says that there is no
    such file or denies it, or if the target cannot be written, otherwise after `retry_seconds` of attempts
    with growing pauses.
    """
    files, path = _files(address)
    try:
        persistently(address, retry_seconds, lambda: files.get_file(path, str(target)))
    except OSError as error:
        remedy = "make room there, or choose another place by stream.cache or TMPDIR"
        raise DataError(f"{target}: cannot hold {address}", error.strerror, remedy) from error


def require_writable(address: str) -> None:
    """Raise DataError unless files can be stored at an address of this kind."""
    if scheme(address) not in WRITABLE:
        schemes = ", ".join(f"{name}://" for name in WRITABLE)
        raise DataError(
            f"{address}: cannot be written to", f"{scheme(address)}:", f"use a folder or one of {schemes}"
        )


def store(path: Path, address: str) -> None:
    """Copy a local file to an address. Raises RunError, with what was seen last, if that cannot be done."""
    files, target = _files(address)
    _storing(address, lambda: files.put_file(str(path), target))


def sizes(folder: str) -> dict[str, int]:
    """Names of the files right below an address, with their bytes; none if there is no such folder."""
    return {name: size for name, (_, size) in _listed(folder).items()}


def read_all(folder: str) -> dict[str, bytes]:
    """The files right below an address: name -> content."""
    files, _ = _files(folder)
    listing = _listed(folder)
    paths = [path for path, _ in listing.values()]
    contents = _storing(folder, lambda: files.cat(paths)) if paths else {}  # at once, not one by one
    return {name: contents[path] for name, (path, _) in listing.items()}


def remove(folder: str, names: Container[str] | None = None) -> None:
    """Delete the files right below an address, or those of these names."""
    files, _ = _files(folder)
    listing = _listed(folder).items()
    if paths := [path for name, (path, _) in listing if names is None or name in names]:
        _storing(folder, lambda: files.rm(paths))


def _listed(folder: str) -> dict[str, tuple[str, int]]:
    """Files right below an address: name -> path in the file system, bytes."""
    files, path = _files(folder)

    def find() -> dict[str, Any]:
        files.invalidate_cache()  # fsspec remembers listings, and others write there too
        return files.find(path, maxdepth=1, detail=True)

    listing = _storing(folder, find)
    return {path.rsplit("/", 1)[-1]: (path, info["size"]) for path, info in listing.items()}


def _storing(address: str, attempt: Callable[[], Answer]) -> Answer:
    """As `persistently`; a place to write to that fails is nobody's data."""
    try:
        return persistently(address, RETRY_SECONDS, attempt, "written")
    except DataError as error:
        raise RunError(error.what, error.value, error.remedy) from error


def _files(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it."""
    kind = scheme(address)
    try:
        importlib.import_module(PACKAGES[kind])
    except ImportError as error:
        package = PACKAGES[kind]
        raise DataError(
            f"{address}: {kind}:// needs a package", f"{package} is not installed", f"pip install {package}"
        ) from error
    import fsspec

    files = fsspec.filesystem(kind, **_options(kind))
    return files, files._strip_protocol(address)


def _options(kind: str) -> dict[str, Any]:
    """Limits on a single attempt; attempts are repeated here, not below."""
    if kind == "s3":
        limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
        return {"config_kwargs": {**limits, "retries": {"max_attempts": 0}}}
    if kind == "gs":
        return {}
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}}
