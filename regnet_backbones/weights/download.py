"""From the name or address of a published weight to a file on this machine, with what is known of it.

Files are kept in ``REGNET_BACKBONES_CACHE`` or where the platform keeps caches, one folder per catalogue row.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from ..errors import UserError
from .catalogue import SCHEME, Published, find, lookup
from .meta import Meta
from .sidecar import digest, read_sidecar, sidecar_of, write_sidecar
from .transfer import Progress, discard, disk_error, transfer

CACHE_VARIABLE = "REGNET_BACKBONES_CACHE"
WEB = ("http://", "https://")
logger = logging.getLogger(__name__)


def resolve(spec: str | os.PathLike, cache_dir: str | os.PathLike | None = None) -> tuple[Path, Meta | None]:
    """The local file that ``spec`` means, downloaded if need be, and what is known of it.

    Args:
        spec: ``regnet://NAME`` of the catalogue, an ``http(s)://`` address (one of the catalogue or any other), an
            alias in the catalogue (``open-mmlab://regnetx_400mf``), or a path, which is passed through.
        cache_dir: see :func:`cache_folder`.

    Returns:
        The path, and the metadata from the catalogue or from a file ``<path>.json`` that an earlier download left;
        None if neither knows the file.

    Raises:
        UserError: an unknown name or scheme, or a failed download.
    """
    text = os.fspath(spec)
    if "://" not in text:
        return Path(text).expanduser(), read_sidecar(Path(text).expanduser())
    path = get(text, cache_dir)
    return path, read_sidecar(path)


def resolvable(spec: str) -> bool:
    """Whether ``spec`` is an address that :func:`resolve` fetches, rather than a path or another scheme's."""
    return spec.startswith((SCHEME, *WEB)) or ("://" in spec and lookup(spec) is not None)


def cache_folder(cache_dir: str | os.PathLike | None = None) -> Path:
    """Where downloads are kept: the argument, else ``REGNET_BACKBONES_CACHE``, else the platform's cache folder."""
    chosen = cache_dir or os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("regnet_backbones") / "weights"


def get(
    name: str | Published, cache_dir: str | os.PathLike | None = None, progress: Progress | None = None
) -> Path:  # fmt: skip
    """The file of a published weight, downloaded unless it is here already.

    Args:
        name: a row of the catalogue, its name, an alias, or any ``http(s)://`` address.
        cache_dir: see :func:`cache_folder`.
        progress: see :func:`regnet_backbones.weights.transfer.transfer`.

    Raises:
        UserError: an unknown name, no network, nothing at the address, a wrong checksum (the file is removed),
            a full disk, or a connection that was cut (then the next call continues).
    """
    row = name if isinstance(name, Published) else _row(name)
    target = place(row, cache_dir)
    if target.exists() and sidecar_of(target).exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            if not target.exists():
                _download(row, target, progress)
            elif not sidecar_of(target).exists():  # somebody brought it here by another way
                write_sidecar(target, row.meta(_verified(row, target, f"remove '{target}'")))
    except OSError as error:
        raise disk_error(target.parent, error) from error
    return target


def place(row: Published, cache_dir: str | os.PathLike | None = None) -> Path:
    """Where the file of a row is, or would be, in the cache."""
    folder = row.name or hashlib.sha256(row.url.encode()).hexdigest()[:16]
    return cache_folder(cache_dir) / folder / (PurePosixPath(urlsplit(row.url).path).name or "weights")


def copy(name: str | Published, out: str | os.PathLike, cache_dir: str | os.PathLike | None = None) -> None:
    """Put a downloaded file, and what is known of it, at ``out`` as well.

    Raises:
        UserError: it cannot be written there.
    """
    source, target = get(name, cache_dir), Path(out)
    partial = target.with_name(f".{target.name}.part")
    try:
        shutil.copyfile(source, partial)
        shutil.copyfile(sidecar_of(source), sidecar_of(target))
        os.replace(partial, target)
    except OSError as error:
        raise UserError(f"'{target}' cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _row(name: str) -> Published:
    row = lookup(name)
    if row is None and name.startswith(WEB):
        # An address that nobody described: only where it came from can be kept.
        return Published("", "", name, "", "", "", "", (), (), name)  # type: ignore[arg-type]
    return row or find(name)


def _download(row: Published, target: Path, progress: Progress | None) -> None:
    part = target.with_name(f"{target.name}.part")
    logger.info("downloading %s to %s", row.url, target)
    transfer(row.url, part, progress)
    try:
        sha256 = _verified(row, part, "it was removed: try again, and if it stays so, the publisher has changed it")
    except UserError:
        discard(part)
        raise
    write_sidecar(target, row.meta(sha256))  # first, so that a file is never there without it
    os.replace(part, target)
    discard(part)


def _verified(row: Published, file: Path, remedy: str) -> str:
    """The sha256 of ``file``, which has the published checksum, if one is published."""
    sha256 = digest(file)
    algorithm, _, published = row.checksum.partition(":")
    if published:
        found = sha256 if algorithm == "sha256" else digest(file, algorithm)
        if not found.startswith(published):
            raise UserError(
                f"the file from {row.url} is not the published one: its {algorithm} begins {found[: len(published)]},"
                f" not {published}; {remedy}"
            )
    return sha256


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Two processes that want the same file: the second waits, and finds it."""
    from filelock import FileLock, Timeout

    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("another process is downloading %s; waiting for it", target)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
