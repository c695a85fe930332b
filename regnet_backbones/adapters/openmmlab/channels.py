"""Neck and head channels from the backbone, when the model is built.

A config that computes them keeps the base's numbers when a child config or ``--cfg-options`` changes ``arch``.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from torch import nn

from ...errors import UserError

# Channels of the finest feature, which DeepLabV3+ heads want beside those they decode.
_FINEST = "c1_in_channels"


@MODELS.register_module(name="DeriveChannels")
def derive_channels(model_type: str, backbone: dict, **model: Any) -> nn.Module:
    """Builds a ``model_type`` whose ``in_channels`` fit its backbone.

    ``model = dict(type="DeriveChannels", model_type="MaskRCNN", backbone=..., neck=dict(type="FPN", ...), ...)``.
    ``in_channels`` that are absent or None are filled in: the neck's or, without one, those of every head that
    reads the backbone, by its ``in_index``. Those that are given must be right. Any backbone class will do
    that has a class method ``channels_of``, from its arguments to the channels of the features it returns.

    Raises:
        UserError: the backbone cannot tell its channels, or given ones differ from them.
    """
    channels = _channels_of(backbone)
    readers = ["neck"] if model.get("neck") else [name for name in model if name.endswith("_head")]
    for name in readers:
        if isinstance(model[name], Sequence):  # necks form a chain, heads of a cascade all read the backbone
            reading = 1 if name == "neck" else len(model[name])
            model[name] = [
                _fitted(part, channels, f"{name}[{i}]") if i < reading else part for i, part in enumerate(model[name])
            ]
        elif model[name]:
            model[name] = _fitted(model[name], channels, name)
    return MODELS.build(ConfigDict(type=model_type, backbone=backbone, **model))


def _channels_of(backbone: dict) -> list[int]:
    cls = _class_of(backbone)
    if not hasattr(cls, "channels_of"):
        raise UserError(
            f"DeriveChannels needs a backbone that can tell its channels, which {backbone['type']} cannot: take"
            " RegNetBackbone, or make the model of its own type with in_channels in the neck or heads"
        )
    return list(cls.channels_of(**{k: v for k, v in backbone.items() if k not in ("type", "_scope_")}))


def _class_of(part: dict) -> type | None:
    kind = part["type"]
    if not isinstance(kind, str):
        return kind
    with MODELS.switch_scope_and_registry(part.get("_scope_")) as registry:
        return registry.get(kind)


def _fitted(part: dict, channels: list[int], name: str) -> dict:
    """A copy of a neck's or head's config with ``in_channels``, where it takes any."""
    right = _read_by(part, channels, name)
    given = part.get("in_channels")
    fits = given == right or (isinstance(given, Sequence) and list(given) in (right, channels[::-1]))
    fits = fits or (right is channels and given == channels[-1])  # of a neck that reads the deepest feature alone
    if given is not None and not fits:
        raise UserError(
            f"model.{name}.in_channels={given} does not fit the backbone, which gives {right}; remove it, and it"
            " is filled in"
        )
    part = copy.copy(part)
    part["in_channels"] = right if given is None else given
    if _FINEST in part and part[_FINEST] is None:
        part[_FINEST] = channels[0]
    return part


def _read_by(part: dict, channels: list[int], name: str) -> int | list[int]:
    """The channels of what a neck or head reads; ``in_index`` chooses, else its class's default does."""
    index = part["in_index"] if "in_index" in part else _default_index(_class_of(part))
    if index is None:
        return channels
    try:
        return channels[index] if isinstance(index, int) else [channels[i] for i in index]
    except IndexError:
        raise UserError(
            f"model.{name}.in_index={index} asks for more features than the {len(channels)} of the backbone; give"
            " it more out_indices"
        ) from None


def _default_index(cls: type | None) -> int | None:
    for base in inspect.getmro(cls) if inspect.isclass(cls) else ():
        parameter = inspect.signature(base.__init__).parameters.get("in_index")
        if parameter:
            return parameter.default
    return None
