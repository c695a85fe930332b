"""Pickles of strangers: tensors, numpy arrays and plain containers come out, and nothing else can run.

Numpy's own reconstruction is not called either: small stand-ins take its place and turn into tensors at the end.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, ClassVar

import numpy as np
import torch
from torch import Tensor


class UnsafePickleError(Exception):
    """A pickle asks for something that is neither data nor a container; the message is its dotted name."""


class _Dtype:
    """Stands for a numpy dtype; the byte order arrives later, as its state."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not re.fullmatch(r"[<>|=]?[biuf]\d{1,2}|bool", str(code)):
            raise UnsafePickleError(f"numpy dtype {str(code)[:40]}")
        self.numpy = np.dtype(str(code))

    def __setstate__(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.numpy = self.numpy.newbyteorder(state[1])


class _Array:
    """Stands for a numpy array until :func:`plain` makes a tensor of it."""

    def __init__(self, *_: Any) -> None:
        self.values: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran_order, raw = state
        self.fill(raw, dtype, shape, "F" if fortran_order else "C")

    def fill(self, raw: Any, dtype: _Dtype, shape: Any, order: str) -> None:
        raw = raw.encode("latin1") if isinstance(raw, str) else raw  # so does Python 2 write bytes
        self.values = np.frombuffer(raw, dtype.numpy).reshape(shape, order=order)

    def tensor(self) -> Tensor:
        if self.values is None:
            raise ValueError("an array without content")
        native = self.values.astype(self.values.dtype.newbyteorder("="), copy=False)
        writable = native if native.flags.writeable else native.copy()
        return torch.from_numpy(np.ascontiguousarray(writable)).reshape(native.shape)


class _Inert:
    """Stands for a training log: takes any state, keeps none of it."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _array(*_: Any) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, raw: Any) -> Any:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    return np.frombuffer(raw, dtype.numpy)[0].item()


def _from_buffer(raw: Any, dtype: _Dtype, shape: Any, order: str) -> _Array:
    array = _Array()
    array.fill(raw, dtype, shape, order)
    return array


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if not (isinstance(text, str) and encoding == "latin1"):
        raise UnsafePickleError("_codecs.encode")
    return text.encode("latin1")


def _attribute(thing: Any, name: str) -> _Inert:
    """The methods that a training log keeps by name."""
    if thing is not _Inert:
        raise UnsafePickleError("getattr")
    return _Inert()


def _no_bytes() -> bytes:
    """How pickles of protocol 2 write empty bytes."""
    return b""


_BUILTINS = ("builtins", "__builtin__")
_STAND_INS: dict[str, Callable] = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    **{f"{core}.multiarray._reconstruct": _array for core in ("numpy.core", "numpy._core")},
    **{f"{core}.multiarray.scalar": _scalar for core in ("numpy.core", "numpy._core")},
    **{f"{core}.numeric._frombuffer": _from_buffer for core in ("numpy.core", "numpy._core")},
    # What a training run of MMEngine leaves beside the weights.
    "mmengine.logging.history_buffer.HistoryBuffer": _Inert,
    **{f"{builtins}.getattr": _attribute for builtins in _BUILTINS},
    **{f"{builtins}.bytes": _no_bytes for builtins in _BUILTINS},
}
_PICKLE_GLOBALS = _STAND_INS | {"collections.OrderedDict": OrderedDict, "_codecs.encode": _encode}


class _PlainUnpickler(pickle._Unpickler):
    """The unpickler written in Python: the one in C reserves whatever memory an opcode names."""

    dispatch: ClassVar[dict] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _PICKLE_GLOBALS:
            raise UnsafePickleError(f"{module}.{name}")
        return _PICKLE_GLOBALS[f"{module}.{name}"]

    def load_build(self) -> None:
        built = self.stack[-2]
        if not isinstance(built, (_Array, _Dtype, _Inert)):
            raise UnsafePickleError(f"state for {type(built).__name__}")
        built.__setstate__(self.stack.pop())

    def load_byte_array(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        content = self.read(size)  # of a file: no more than is there
        if len(content) < size:
            raise EOFError("the file ends inside an array")
        self.append(bytearray(content))

    def refuse_extension(self) -> None:
        raise UnsafePickleError("an entry of copyreg's registry")

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.BYTEARRAY8[0]] = load_byte_array
    for _opcode in (pickle.EXT1, pickle.EXT2, pickle.EXT4):
        dispatch[_opcode[0]] = refuse_extension


def load_pickle(file: IO[bytes]) -> Any:
    """Unpickle a plain pickle, as Detectron2 writes them.

    Raises:
        UnsafePickleError: it holds anything but numbers, texts, numpy arrays and containers of them.
    """
    return plain(_PlainUnpickler(file, encoding="latin1").load())


def load_torch(path: str, *, mmap: bool) -> Any:
    """``torch.load`` of tensors, numpy arrays and containers, on the CPU.

    Raises:
        UnsafePickleError: it holds anything else.
    """
    try:
        with _stand_ins():
            return plain(torch.load(path, map_location="cpu", weights_only=True, mmap=mmap))
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted:
            raise UnsafePickleError(wanted[1]) from error
        raise


@contextmanager
def _stand_ins() -> Iterator[None]:
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        yield  # before torch 2.6 a stand-in cannot carry another name: numpy arrays are refused there
        return
    with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in _STAND_INS.items()]):
        yield


def plain(data: Any) -> Any:
    """``data`` with every array as a tensor and every parameter as its values; shared parts stay shared."""
    return _plain(data, {})


def _plain(data: Any, done: dict[int, Any]) -> Any:
    if id(data) in done:
        return done[id(data)]
    if isinstance(data, _Array):
        result: Any = data.tensor()
    elif isinstance(data, Tensor):
        result = data.detach()
    elif isinstance(data, dict):
        result = OrderedDict() if isinstance(data, OrderedDict) else {}
        result.update({key: _plain(value, done) for key, value in dict.items(data)})
        hidden = getattr(data, "__dict__", {}).get("_metadata")
        if isinstance(hidden, dict):
            result._metadata = hidden
    elif isinstance(data, (list, tuple)):
        result = [_plain(value, done) for value in data]
    else:
        result = data
    done[id(data)] = result
    return result
