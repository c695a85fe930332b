"""What is known of a weight file that cannot say it itself: ``<file>.json`` beside it, tied to the file's sha256."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from pathlib import Path
from typing import Any

from .meta import Meta

logger = logging.getLogger(__name__)


def sidecar_of(file: str | os.PathLike) -> Path:
    """Where the metadata of ``file`` is written."""
    return Path(f"{os.fspath(file)}.json")


def write_sidecar(file: str | os.PathLike, meta: Meta) -> None:
    """Write the metadata of ``file``, whose sha256 it must state."""
    write_json(sidecar_of(file), meta.to_dict())


def read_sidecar(file: str | os.PathLike) -> Meta | None:
    """The metadata beside ``file``; None if there is none, if it is that of another file of this name, or if it
    does not know which pixels the file expects."""
    path = sidecar_of(file)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(values, dict) or "sha256" not in values:
        return None
    meta = Meta.from_dict(values)
    if meta.sha256 != digest(file):
        logger.warning("'%s' is not about the present '%s', whose sha256 is another; it is ignored", path, file)
        return None
    return meta if meta.channel_order else None


def digest(file: str | os.PathLike, algorithm: str = "sha256") -> str:
    """Checksum of a file in hexadecimal digits."""
    with open(file, "rb") as stream:
        hasher = hashlib.new(algorithm, usedforsecurity=False)
        while block := stream.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def write_json(path: Path, values: Any) -> None:
    """Atomically."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        partial.write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
