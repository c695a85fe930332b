"""What is in a checkpoint: whose format, which architecture, and what else besides the trunk."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..arch import Arch, get_arch
from ..errors import UserError
from .architecture import HEAD, arch_of, expected_shapes, fit, known_as, layout
from .file import META_KEY, Contents
from .formats import Format, formats, get_format
from .meta import Meta, imagenet_statistics
from .rename import Rename
from .sidecar import read_sidecar
from .strict import COUNTER, Shape

_AVERAGE = re.compile(r"(?<![a-z])ema(?![a-z])|averag", re.IGNORECASE)
_TRAINING = re.compile(r"optim|sched|epoch|iter|scaler|loss|amp|message_hub", re.IGNORECASE)
_NO_WEIGHTS = "not weights"
_WEIGHTS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_COUNTS = (torch.int64, torch.int32)
_DEPTH = 6  # how deep in a container a state dict may sit; VISSL's is at 4


@dataclass
class Recognized:
    """A checkpoint in our names.

    Attributes:
        path: the file.
        format: whose names it has.
        state: our names to tensors, the trunk and perhaps ``head.fc``.
        arch: the architecture of the trunk.
        left_out: reason to the keys that were left out for it.
        head_keys: what the file calls the two tensors of a classifier.
        meta: the file's metadata, or what its format lets one assume, which a note then says.
        stated: whether the metadata comes from the file or the caller, not from an assumption.
        prefix: of the trunk's names in the file.
        rest: the tensors beside the trunk, by the file's names.
    """

    path: Path
    format: Format
    state: dict[str, Tensor]
    arch: Arch
    left_out: dict[str, list[str]]
    head_keys: list[str]
    meta: Meta
    stated: bool
    prefix: str = ""
    rest: dict[str, Tensor] = field(default_factory=dict, repr=False)


@dataclass
class _Candidate:
    """A state dict at ``path`` of the container, that reads as ``format`` behind ``prefix``."""

    path: tuple[str, ...]
    format: Format
    prefix: str
    tensors: dict[str, Any] = field(repr=False)

    @property
    def trunk(self) -> str:
        """The part of the prefix that belongs to the format's own models."""
        return max((t for t in self.format.trunks if self.prefix.endswith(t)), key=len, default="")

    @property
    def root(self) -> str:
        """The part that does not: a wrapper's, as ``module.``."""
        return self.prefix.removesuffix(self.trunk)

    @property
    def place(self) -> str:
        return ".".join((*self.path, self.prefix))


def shapes(state: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Name to shape."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def recognize(
    contents: Contents,
    *,
    source_format: str | None = None,
    arch: Any = None,
    prefix: str = "",
    ema: bool = False,
    meta: Meta | None = None,
    allow_partial: bool = False,
) -> Recognized:
    """Find the RegNet in a checkpoint and give it our names.

    Args:
        contents: an opened file.
        source_format: take it for this format instead of recognizing it.
        arch: the architecture it must be, in any form that ``get_arch`` takes; with ``allow_partial`` taken as said.
        prefix: where in the file, if there are several networks; the start of the path shown in the error.
        ema: take the averaged weights instead of the last ones.
        meta: metadata to take instead of the file's.
        allow_partial: skip the check that the file holds the whole architecture.

    Raises:
        UserError: no RegNet, several, an unknown key, a wrong shape, a tensor that is not finite.
    """
    candidate = _choose(contents, source_format, prefix, ema)
    state, left_out = _renamed(contents.path, candidate)
    check_values(contents.path, state)
    for path, reason in _beside(contents.data, candidate.path):
        left_out.setdefault(reason, []).append(path)
    stated = meta or contents.meta() or read_sidecar(contents.path)
    found = _architecture(contents.path, state, arch, stated, allow_partial)
    if not (layout(shapes(state)).batch_norm or candidate.format.other_norms):
        raise UserError(
            f"'{contents.path}' has norms without running statistics, whose groups {candidate.format.title} chooses"
            " in its own way; only weights with batch norm can be converted from it"
        )
    their_head = [_their_head(candidate) + leaf for leaf in ("weight", "bias")]
    if HEAD + "weight" in state and state[HEAD + "weight"].shape[-1:] != (found.stages[-1].width,):
        reason = "a classifier on other features than the last stage's"
        left_out[reason] = their_head
        state = {name: tensor for name, tensor in state.items() if not name.startswith(HEAD)}
    known = stated or _assumed(candidate.format, state["stem.conv.weight"].shape[1])
    rest = {key: value for key, value in candidate.tensors.items() if not key.startswith(candidate.prefix)}
    return Recognized(
        path=contents.path,
        format=candidate.format,
        state=state,
        arch=found,
        left_out=left_out,
        head_keys=their_head,
        meta=known,
        stated=stated is not None,
        prefix=candidate.prefix,
        rest={key: value for key, value in rest.items() if isinstance(value, Tensor)},
    )


def _architecture(path: Path, state: Mapping[str, Tensor], wanted: Any, meta: Meta | None, partial: bool) -> Arch:
    trunk = {name: shape for name, shape in shapes(state).items() if not name.startswith(HEAD)}
    if partial and wanted is not None:
        return get_arch(wanted)
    try:
        found = arch_of(trunk)
    except UserError as error:
        raise UserError(f"'{path}' cannot be read as a RegNet: {error}") from error
    misfit = fit(found, trunk)
    if not misfit.complete:
        raise UserError(f"'{path}' is damaged or another network: {misfit.sentence(found.name)}")
    if wanted is None:
        return known_as(meta.arch, found) if meta and meta.arch else found
    asked = get_arch(wanted)
    if expected_shapes(asked) != expected_shapes(found):
        misfit = fit(asked, trunk)
        raise UserError(f"'{path}' holds {found.name}, not {asked.name}: {misfit.sentence(asked.name)}")
    return asked


def _choose(contents: Contents, source_format: str | None, prefix: str, ema: bool) -> _Candidate:
    """The one network that is meant."""
    allowed = [get_format(source_format)] if source_format else list(formats().values())
    places: dict[str, list[_Candidate]] = {}
    for candidate in _candidates(contents, allowed):
        places.setdefault(candidate.place, []).append(candidate)
    if not places:
        raise UserError(_unrecognized(contents, source_format))
    averaged = {place: found for place, found in places.items() if _AVERAGE.search(place)}
    if ema and not averaged:
        raise UserError(f"'{contents.path}' holds no averaged weights (EMA); convert it without that option")
    kept = averaged if ema else {place: found for place, found in places.items() if place not in averaged} or averaged
    kept = {place: found for place, found in kept.items() if place.startswith(prefix)}
    if not kept:
        raise UserError(f"'{contents.path}' has no RegNet at '{prefix}'; there is one at {_quoted(places)}")
    if len(kept) > 1:
        raise UserError(f"'{contents.path}' holds {len(kept)} RegNets; choose one by its prefix: {_quoted(kept)}")
    return min(next(iter(kept.values())), key=lambda candidate: _unlikeliness(contents, candidate))


def _unlikeliness(contents: Contents, candidate: _Candidate) -> tuple:
    """Formats with the same trunk names are told apart by what is around them; pycls is what is left."""
    fmt = candidate.format
    has_meta, has_author = contents.meta() is not None, "__author__" in contents.data
    ours = fmt.name == "ours" and has_meta and not has_author and fmt.path == candidate.path
    if fmt.name == "ours" and contents.metadata:
        ours = has_meta
    head = candidate.root + fmt.head + ".weight"
    at_home = fmt.path == candidate.path and (fmt.name != "ours" or ours)
    return (not ours, head not in candidate.tensors, -len(candidate.trunk), not at_home, fmt.name != "pycls", fmt.name)


def _candidates(contents: Contents, allowed: list[Format]) -> Iterator[_Candidate]:
    for path, tensors in _state_dicts(contents.data):
        for fmt in allowed:
            cleaned = _without_infix(fmt, tensors)
            stem, conv = fmt.signature()
            for key in cleaned:
                if key.endswith(stem) and (key == stem or key[-len(stem) - 1] == "."):
                    prefix = key.removesuffix(stem)
                    if prefix + conv in cleaned and prefix.endswith(fmt.trunks):
                        yield _Candidate(path, fmt, prefix, cleaned)


def _state_dicts(data: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict]]:
    """Every mapping in the container that holds named tensors, with the keys that lead there."""
    if isinstance(data, dict) and len(path) < _DEPTH:
        if any(isinstance(key, str) and isinstance(value, Tensor) for key, value in data.items()):
            yield path, data
        for key, value in data.items():
            if isinstance(key, str) and isinstance(value, dict):
                yield from _state_dicts(value, (*path, key))


def _without_infix(fmt: Format, tensors: Mapping[str, Any]) -> dict[str, Any]:
    names = (key for key in tensors if isinstance(key, str))
    if not fmt.infix:
        return {key: tensors[key] for key in names}
    infix = re.compile(fmt.infix)
    return {infix.sub("", key): tensors[key] for key in names}


def _renamed(path: Path, candidate: _Candidate) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Our names to tensors, and what was left out; a key that neither table nor rest explains is an error."""
    fmt, rename = candidate.format, candidate.format.to_ours()
    state: dict[str, Tensor] = {}
    left_out: dict[str, list[str]] = {}
    unknown = []
    for key, value in candidate.tensors.items():
        name, reason = _translate(fmt, rename, candidate.prefix, key)
        if name is None and not reason:
            name, reason = _outside(candidate, key)
        if name is None and not isinstance(value, Tensor):
            reason = _NO_WEIGHTS
        if name is not None:
            state[name] = value
        elif reason:
            left_out.setdefault(reason, []).append(key)
        else:
            unknown.append(key)
    if unknown:
        names = ", ".join(unknown[:20]) + (f" and {len(unknown) - 20} more" if len(unknown) > 20 else "")
        raise UserError(f"'{path}' reads as {fmt.title}, which has no place for {names}; remove what is not part of it")
    return state, left_out


def _translate(fmt: Format, rename: Rename, prefix: str, key: str) -> tuple[str | None, str]:
    """Our name of a key of the trunk, or the reason to drop it; neither when no row is for it."""
    inside = key.removeprefix(prefix)
    try:
        name = rename(inside) if key.startswith(prefix) else None
    except KeyError:
        return None, ""
    return name, "" if name or not key.startswith(prefix) else fmt.reasons[inside.rpartition(".")[0]]


def _their_head(candidate: _Candidate) -> str:
    return f"{candidate.root}{candidate.format.head}."


def _outside(candidate: _Candidate, key: str) -> tuple[str | None, str]:
    """A key that is not the trunk's: the classifier's, or the reason to leave it out, or neither."""
    fmt = candidate.format
    if fmt.head and key in (_their_head(candidate) + "weight", _their_head(candidate) + "bias"):
        return HEAD + key.rpartition(".")[2], ""
    if not key.startswith(candidate.root):
        return None, f"outside of '{candidate.root.rstrip('.')}'"
    if fmt.rest and not key.startswith(candidate.prefix):
        return None, fmt.rest
    return None, ""


def _beside(data: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """What the container holds around the chosen state dict, with the reason to leave it."""
    node = data
    for depth, step in enumerate(path):
        for key, value in node.items():
            if key not in (step, META_KEY) and not _is_empty(value):
                yield ".".join((*path[:depth], str(key))), _why_beside(str(key), value)
        node = node[step]


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (dict, list)) and not value)


def _why_beside(key: str, value: Any) -> str:
    if _AVERAGE.search(key):
        return "averaged weights; take them with ema"
    if _TRAINING.search(key):
        return "training state"
    return "another network" if isinstance(value, dict) and any(_state_dicts(value)) else _NO_WEIGHTS


def check_values(path: Path, state: Mapping[str, Any]) -> None:
    """Refuse what no trained network holds."""
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise UserError(f"'{path}' holds something else than a dense tensor for '{name}'; save it again")
        counts = name.endswith(COUNTER)
        if tensor.dtype not in (_COUNTS if counts else _WEIGHTS):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(f"'{path}' holds {kind} numbers for '{name}', where {_right_kind(counts)} belong")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(f"'{path}' repeats few numbers to fill '{name}', which no trained network does")
        if not counts and not _finite(tensor):
            raise UserError(f"'{path}' holds NaN or infinite numbers for '{name}'; its training diverged")


def _right_kind(counts: bool) -> str:
    return "whole numbers" if counts else "float16, bfloat16, float32 or float64"


def _finite(tensor: Tensor) -> bool:
    # The sum is finite in nearly every case and needs no mask; only a sum that overflows asks for a closer look.
    return bool(torch.isfinite(tensor.sum(dtype=torch.float32))) or bool(torch.isfinite(tensor).all())


def _assumed(fmt: Format, in_channels: int) -> Meta:
    """What files of this format usually expect; nothing for other images than those of three channels."""
    if not fmt.channel_order or in_channels != 3:
        return Meta(
            format=fmt.name, notes=["the file does not say which channel order and pixel statistics it expects"]
        )
    note = f"assumed {fmt.channel_order} and ImageNet's pixel statistics, as {fmt.name} publishes its weights"
    return Meta(format=fmt.name, notes=[note], **imagenet_statistics(fmt.channel_order))


def _unrecognized(contents: Contents, source_format: str | None) -> str:
    keys = [key for _, tensors in _state_dicts(contents.data) for key in tensors if isinstance(key, str)]
    for fmt in formats().values():
        for module, network in fmt.look_alikes.items():
            if any(key.endswith(f"{module}.weight") for key in keys):
                return f"'{contents.path}' holds {network}, which is not a network of this project"
    wanted = get_format(source_format).title if source_format else f"any known format ({', '.join(formats())})"
    if not keys:
        return f"'{contents.path}' holds no named tensors (its entries are {_quoted(map(str, contents.data))})"
    return f"'{contents.path}' holds no RegNet in the names of {wanted}; its first tensors are {_quoted(keys)}"


def _quoted(names: Any, limit: int = 4) -> str:
    names = list(names)
    return ", ".join(f"'{name}'" for name in names[:limit]) + (", ..." if len(names) > limit else "")
