"""From one file to another: every source tensor accounted for, every target tensor filled, or nothing is written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..arch import Arch
from ..errors import UserError
from .architecture import HEAD, expected_shapes, layout, spec
from .detectors import get_framework, read_detector
from .file import META_KEY, container_for, read, write
from .formats import Format, get_format
from .meta import CHANNEL_ORDERS, Meta, imagenet_statistics
from .recognize import Recognized, recognize, shapes
from .sidecar import digest
from .strict import COUNTER, compare

_STEM = "stem.conv.weight"


@dataclass(frozen=True)
class Report:
    """What a conversion did.

    Attributes:
        arch: the architecture of the trunk.
        num_classes: of the classifier that was written, 0 without one.
        converted: how many tensors the target got from the source.
        left_out: reason to the source's keys that were left out for it.
        zeroed: the target's batch norm counters that the source lacks, written as 0.
        missing: what the target's own model has and the source did not.
        flipped: whether the stem's input channels were reversed.
        meta: the metadata written.
        detector: which one, if neck and heads were converted too.
        config_lines: what the target's config must then set.
    """

    src: Path
    dst: Path
    source_format: str
    target_format: str
    arch: Arch
    num_classes: int
    converted: int
    left_out: dict[str, list[str]]
    zeroed: list[str]
    missing: list[str]
    flipped: bool
    meta: Meta
    detector: str = ""
    config_lines: list[str] = field(default_factory=list)

    def rows(self) -> list[tuple[str, str]]:
        """Two columns for a person."""
        head = f"classifier of {self.num_classes} classes" if self.num_classes else "none"
        flip = ", the stem's input channels reversed" if self.flipped else ""
        rows = [
            ("from", f"{self.src} ({self.source_format})"),
            ("to", f"{self.dst} ({self.target_format})"),
            ("architecture", self.arch.name),
            ("detector", self.detector),
            ("head", "" if self.detector else head),
            ("converted", f"{self.converted} tensors"),
            *((f"left out: {len(keys)}", f"{reason}: {_first(keys)}") for reason, keys in self.left_out.items()),
            ("missing", ", ".join(self.missing)),
            *(("set in the config", line) for line in self.config_lines),
            ("written as 0", f"{len(self.zeroed)} counters of batch norm, which the source lacks"),
            ("channel order", (self.meta.channel_order or "unknown") + flip),
            ("pixel mean", _numbers(self.meta.pixel_mean)),
            ("pixel std", _numbers(self.meta.pixel_std)),
            *(("note", note) for note in self.meta.notes),
        ]
        return [(name, text) for name, text in rows if text and not (name == "written as 0" and not self.zeroed)]


def convert(
    src: str | os.PathLike,
    dst: str | os.PathLike,
    *,
    to: str,
    arch: Any = None,
    source_format: str | None = None,
    channel_order: str | None = None,
    source_channel_order: str | None = None,
    ema: bool = False,
    prefix: str = "",
    meta: Meta | None = None,
    source: str = "",
    unsafe: bool = False,
    overwrite: bool = False,
    whole_detector: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Report:
    """Convert a checkpoint of any RegNet from one format to another; see ``weights/formats`` for the formats.

    Args:
        src: a checkpoint in any known format and container.
        dst: where to write; its suffix chooses the container (``.safetensors``, ``.pkl``, any other for torch).
        to: the format to write.
        arch: what the checkpoint must be, in any form that ``get_arch`` takes; None recognizes it.
        source_format: None recognizes it.
        channel_order: ``RGB`` or ``BGR`` to reverse the stem's input channels, with mean and std, if the source
            has the other order. None keeps the source's.
        source_channel_order: the source's order, where the file does not say it and its format's usual one is wrong.
        ema: take the averaged weights of a training checkpoint.
        prefix: which network, if the file holds several.
        meta: metadata to take instead of the file's own.
        source: the address the file came from, to note in the metadata; its name when empty.
        unsafe: unpickle whatever the file asks for, which can run any code it brings.
        overwrite: replace ``dst`` if it exists.
        whole_detector: convert neck and heads too; ``to`` is then one of ``weights/detectors/frameworks.py``.
        settings: what a detector's tensors do not tell, see ``weights/detectors/settings.py``; None takes what the
            file says, or what is usual in the framework it comes from.

    Returns:
        What was converted, left out, filled and missing.

    Raises:
        UserError: anything that would make the result incomplete or different; nothing is written then.
    """
    if settings and not whole_detector:
        raise UserError(f"{_first([*settings])} is a setting of a whole detector; add --whole-detector")
    target, dst = get_framework(to) if whole_detector else get_format(to), Path(dst)
    _check_target(target, dst, overwrite)
    found = recognize(
        read(src, unsafe=unsafe, mmap=True), source_format=source_format, arch=arch, prefix=prefix, ema=ema, meta=meta
    )
    _check_holds(target, found)
    known = _known(found, source_channel_order, source)
    flipped = bool(channel_order) and _wants_flip(known, channel_order, found)
    if flipped:
        known = _flip(found.state, known)
    detector = read_detector(found, known, settings or {}) if whole_detector else None
    state, zeroed = _filled(found, target)
    left_out = dict(detector.left_out if detector else found.left_out)
    if HEAD + "weight" in state and not (target.head and target.writes_head):
        left_out[f"{target.title} has no classifier"] = found.head_keys
        state = {name: tensor for name, tensor in state.items() if not name.startswith(HEAD)}
    num_classes = layout(shapes(state)).num_classes
    named = _named(state, target, found.arch)
    if detector:
        named |= detector.named(target.name)
        zeroed += detector.zeroed
        known = replace(known, settings=detector.settings)
    _write(dst, target, named, known)
    return Report(
        src=Path(src),
        dst=dst,
        source_format=found.format.name,
        target_format=target.name,
        arch=found.arch,
        num_classes=num_classes,
        converted=len(named) - len(zeroed),
        left_out=left_out,
        zeroed=zeroed,
        missing=[f"the classifier ({target.head})"] if target.head and target.writes_head and not num_classes else [],
        flipped=flipped,
        meta=known,
        detector=str(detector or ""),
        config_lines=detector.config_lines(target.name) if detector else [],
    )


def _check_target(target: Format, dst: Path, overwrite: bool) -> None:
    container = container_for(dst)
    if container not in target.containers:
        suffix = dst.suffix.lower()
        raise UserError(f"{target.title} has no {suffix} files; write '{dst.with_suffix('.pth')}' instead of '{dst}'")
    if dst.suffix.lower() == ".pyth" and target.name != "pycls":
        raise UserError(f"'{dst}' would be taken for a pycls checkpoint by Detectron2; give it the suffix .pth")
    if dst.exists() and not overwrite:
        raise UserError(f"'{dst}' exists; choose another name or allow to replace it with --force (overwrite=True)")


def _check_holds(target: Format, found: Recognized) -> None:
    reason = target.cannot_hold(found.arch)
    if reason:
        raise UserError(f"{target.title} cannot hold {found.arch.name}: {reason}; choose another format")
    if not (layout(shapes(found.state)).batch_norm or target.other_norms):
        raise UserError(f"{target.title} has batch norm only, '{found.path}' another norm; choose the format ours")


def _known(found: Recognized, source_channel_order: str | None, source: str) -> Meta:
    """The source's metadata, completed by where it comes from."""
    known = found.meta
    if source_channel_order:
        known = _with_order(known, source_channel_order, found)
    if not known.sha256:
        known = replace(known, source=source or known.source or found.path.name, sha256=digest(found.path))
    return replace(known, arch=spec(found.arch), format=known.format or found.format.name)


def _with_order(known: Meta, order: str, found: Recognized) -> Meta:
    _check_order(order)
    if known.channel_order == order:
        return known
    if found.stated and known.channel_order:
        raise UserError(f"'{found.path}' says itself that its channel order is {known.channel_order}, not {order}")
    return replace(known, notes=[f"channel order {order} as said by the user"], **imagenet_statistics(order))


def _check_order(order: str) -> None:
    if order not in CHANNEL_ORDERS:
        raise UserError(f"'{order}' is not a channel order; choose {' or '.join(CHANNEL_ORDERS)}")


def _wants_flip(known: Meta, order: str, found: Recognized) -> bool:
    _check_order(order)
    if found.state[_STEM].shape[1] != 3:
        raise UserError(f"'{found.path}' takes images of {found.state[_STEM].shape[1]} channels, not RGB or BGR")
    if not known.channel_order:
        raise UserError(f"'{found.path}' does not say its channel order; say it with --source-channel-order")
    return known.channel_order != order


def _flip(state: dict[str, Tensor], known: Meta) -> Meta:
    state[_STEM] = state[_STEM].flip(1)
    flipped = known.flipped()
    note = f"the stem's input channels were reversed from {known.channel_order} to {flipped.channel_order}"
    return replace(flipped, notes=[*known.notes, note])


def _filled(found: Recognized, target: Format) -> tuple[dict[str, Tensor], list[str]]:
    """The state in the trunk's order with every counter of batch norm, and which of those the source lacked."""
    have = layout(shapes(found.state))
    expected = expected_shapes(found.arch, have)
    misfit = compare(expected, shapes(found.state))
    if not misfit.complete:
        raise UserError(f"'{found.path}' cannot be written for {target.title}: {misfit.sentence(found.arch.name)}")
    zeroed = [name for name in expected if name.endswith(COUNTER) and name not in found.state]
    state = {name: found.state.get(name, None) for name in expected}
    return {n: torch.zeros((), dtype=torch.long) if t is None else t for n, t in state.items()}, zeroed


def _named(state: dict[str, Tensor], target: Format, arch: Arch) -> dict[str, Tensor]:
    """Their names to tensors."""
    rename = target.from_ours(arch)
    has_head = HEAD + "weight" in state
    trunk = target.written_trunk[0 if has_head else 1]
    named = {}
    for name, tensor in state.items():
        key = f"{target.head}.{name.removeprefix(HEAD)}" if name.startswith(HEAD) else f"{trunk}{rename(name)}"
        named[key] = tensor
    if len(named) != len(state):
        raise AssertionError(f"two rows of the table of {target.name} give the same name")
    return named


def _write(dst: Path, target: Format, tensors: dict[str, Tensor], known: Meta) -> None:
    """Metadata goes where the peer does not look, so that its own strict loading still works."""
    if container_for(dst) == "safetensors":
        write(dst, tensors, metadata=known)
        return
    data: Any = target.wrap(tensors)
    if target.path:
        data[META_KEY] = known.to_dict()
    else:
        data._metadata = {META_KEY: known.to_dict()}  # PyTorch's own place for what is said about a state dict
    write(dst, data)


def _first(keys: list[str], limit: int = 3) -> str:
    return ", ".join(keys[:limit]) + (f" and {len(keys) - limit} more" if len(keys) > limit else "")


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
