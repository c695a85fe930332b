"""Checkpoint files: reading any container without trusting it, and writing one whole or not at all."""

from __future__ import annotations

import json
import math
import os
import pickle
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .meta import Meta
from .unpickle import UnsafePickleError, load_pickle, load_torch, plain

META_KEY = "regnet_backbones"
CONTAINERS = ("torch", "pickle", "safetensors")
_SUFFIXES = {".pkl": "pickle", ".safetensors": "safetensors"}  # every other one is PyTorch's
_LEGACY_TORCH = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # the number that opens torch.save's files before 1.6
_CHUNK = 1 << 20  # bytes
_SAFETENSORS_HEADER_LIMIT = 100_000_000  # bytes, the format's own limit


@dataclass
class Contents:
    """What a checkpoint file holds: ``data`` with plain containers and tensors on the CPU.

    ``container`` is one of :data:`CONTAINERS`; ``metadata`` is what a safetensors file says beside its tensors.
    """

    path: Path
    container: str
    data: dict[str, Any]
    metadata: dict[str, str] = field(default_factory=dict)

    def meta(self) -> Meta | None:
        """Our metadata, wherever the container has room for it; None when the file has none."""
        try:
            if META_KEY in self.metadata:
                return Meta.from_dict(json.loads(self.metadata[META_KEY]))
            hidden = getattr(self.data, "_metadata", {})
            stated = self.data.get(META_KEY, hidden.get(META_KEY))
            return None if stated is None else Meta.from_dict(stated)
        except json.JSONDecodeError as error:
            raise UserError(f"the metadata '{META_KEY}' of '{self.path}' is not JSON: {error}") from error
        except UserError as error:
            raise UserError(f"the metadata of '{self.path}' is damaged: {error}") from error


def read(path: str | os.PathLike, *, unsafe: bool = False, mmap: bool = False) -> Contents:
    """The contents of a checkpoint file, recognized by its first bytes, not by its suffix.

    Args:
        path: a torch file (zip or legacy), a Detectron2 pickle, or safetensors.
        unsafe: unpickle whatever the file asks for, which can run any code it brings.
        mmap: leave the tensors in the file where its container allows it. Whoever then writes into the same file
            while they are in use crashes the process; replacing the file is harmless.

    Raises:
        UserError: no such file, not a checkpoint, damaged, or a pickle that wants more than data.
    """
    path = Path(path)
    container, load = _recognize(path)
    try:
        data, metadata = load(path, unsafe, mmap)
    except UnsafePickleError as error:
        raise UserError(
            f"'{path}' wants to unpickle {error}, which is neither a tensor nor a plain container; if you trust"
            " where it comes from, allow it with --unsafe (unsafe=True in Python)"
        ) from error
    except UserError:
        raise
    except Exception as error:  # a damaged file can fail anywhere inside torch, pickle or safetensors
        raise UserError(f"'{path}' is damaged or not a {container} checkpoint: {_first_line(error)}") from error
    if not isinstance(data, dict) or not data:
        raise UserError(f"'{path}' holds {_kind(data)}, not a checkpoint with named tensors")
    return Contents(path, container, data, metadata)


def _recognize(path: Path) -> tuple[str, Callable]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(32)
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from error
    if not size:
        raise UserError(f"'{path}' is empty; the download or copy that made it did not finish")
    if head.startswith(b"PK\x03\x04"):
        return "torch", _read_torch_zip
    if head.startswith(b"\x80") and _LEGACY_TORCH in head:
        return "torch", _read_torch_legacy
    if head[8:9] == b"{":
        return "safetensors", _read_safetensors
    if head.startswith(b"\x80"):
        return "pickle", _read_pickle
    raise UserError(f"'{path}' is not a checkpoint: it starts like no torch, pickle or safetensors file")


def _read_torch_zip(path: Path, unsafe: bool, mmap: bool) -> tuple[Any, dict]:
    _check_zip(path)
    if unsafe:
        return plain(torch.load(path, map_location="cpu", weights_only=False, mmap=mmap)), {}
    return load_torch(str(path), mmap=mmap), {}


def _read_torch_legacy(path: Path, unsafe: bool, mmap: bool) -> tuple[Any, dict]:
    if unsafe:
        return plain(torch.load(path, map_location="cpu", weights_only=False)), {}
    return load_torch(str(path), mmap=False), {}


def _read_pickle(path: Path, unsafe: bool, mmap: bool) -> tuple[Any, dict]:
    with path.open("rb") as file:
        return (plain(pickle.load(file, encoding="latin1")) if unsafe else load_pickle(file)), {}


def _read_safetensors(path: Path, unsafe: bool, mmap: bool) -> tuple[Any, dict]:
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > min(_SAFETENSORS_HEADER_LIMIT, path.stat().st_size - 8):
        raise UserError(f"'{path}' is damaged: its header claims {header} bytes, more than the file or format allows")
    with _safetensors().safe_open(path, framework="pt") as file:
        mapped = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return mapped if mmap else {name: t.clone() for name, t in mapped.items()}, file.metadata() or {}


def _check_zip(path: Path) -> None:
    """torch.save stores its entries uncompressed, so a file cannot hold more than its own size.

    The checksums are compared here because torch.load does not: a flipped bit would go unnoticed.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise UserError(f"'{path}' is a compressed archive, as torch.save never writes; unpack it first")
        for entry in entries:
            if entry.CRC:  # torch writes 0 when told not to compute it
                with archive.open(entry) as content:
                    while content.read(_CHUNK):
                        pass


def save(path: str | os.PathLike, tensors: Mapping[str, Tensor], meta: Meta) -> None:
    """Write the project's own checkpoint: trunk names, optionally ``head.fc``, with metadata.

    A path ending in ``.safetensors`` gives that container, ``.pkl`` a Detectron2 pickle, any other one torch's.
    """
    if container_for(path) == "safetensors":
        write(path, dict(tensors), metadata=meta)
    else:
        # The second entry makes Detectron2's own checkpointer find the backbone inside a detector; without an
        # author it takes a pickle for Caffe2's.
        author = {"__author__": META_KEY} if container_for(path) == "pickle" else {}
        write(path, {"model": dict(tensors), "matching_heuristics": True, META_KEY: meta.to_dict(), **author})


def container_for(path: str | os.PathLike) -> str:
    """The container that a file name asks for by its suffix."""
    return _SUFFIXES.get(Path(path).suffix.lower(), "torch")


def write(path: str | os.PathLike, data: Mapping[str, Any], *, metadata: Meta | None = None) -> None:
    """Write ``data`` in the container that ``path``'s suffix asks for, atomically.

    Args:
        path: where to; the folder must exist.
        data: nested plain containers with tensors; for safetensors one flat mapping of tensors.
        metadata: for safetensors only, where it goes into the header.

    Raises:
        UserError: the file cannot be written.
    """
    container = container_for(path)
    with _replacing(Path(path)) as partial:
        if container == "safetensors":
            header = {"format": "pt"} | ({META_KEY: json.dumps(metadata.to_dict())} if metadata else {})
            _safetensors().torch.save_file(_compact(data), partial, metadata=header)
        elif container == "pickle":
            with partial.open("wb") as file:
                pickle.dump(_numpy(data), file, protocol=5)
        else:
            torch.save(_compact(data), partial)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; it takes ``path``'s place only once it is whole and on the disk."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        if not path.parent.is_dir():
            raise UserError(f"'{path}' cannot be written: there is no folder '{path.parent}'")
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"'{path}' cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _compact(data: Any) -> Any:
    """Tensors that are a part of a larger memory are copied out: torch.save would write all of that memory."""
    if isinstance(data, Tensor):
        whole = data.is_contiguous() and data.untyped_storage().nbytes() == math.prod(data.shape) * data.element_size()
        return data if whole else data.clone(memory_format=torch.contiguous_format)
    if isinstance(data, dict):
        for key, value in data.items():
            data[key] = _compact(value)
    return data


def _numpy(data: Any) -> Any:
    if isinstance(data, Tensor):
        if data.dtype == torch.bfloat16:
            raise UserError("a Detectron2 pickle holds numpy arrays, which cannot be bfloat16; write a .pth instead")
        return data.numpy()
    return {key: _numpy(value) for key, value in data.items()} if isinstance(data, Mapping) else data


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise UserError("safetensors files need the package safetensors; pip install safetensors") from error
    return safetensors


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return (text[0][:200] if text else type(error).__name__).rstrip(".")


def _kind(data: Any) -> str:
    return "an empty mapping" if data == {} else f"a {type(data).__name__}"
