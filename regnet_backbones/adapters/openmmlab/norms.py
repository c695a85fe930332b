"""MMCV's ``norm_cfg`` as the trunk's norm: a callable from channels to a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ...blocks import Norm
from ...errors import UserError
from ...norms import EPS, NORMS


def norm_from(norm_cfg: Mapping[str, Any]) -> Norm:
    """The layer for ``norm_cfg``.

    The types that the trunk has are the trunk's: its GN takes ``num_groups`` as the most groups, since few RegNet
    widths can be divided by 32, and its LN works on (N, C, H, W). Any other type is built by MMCV.

    Raises:
        UserError: an unknown type or an option that the type does not have.
    """
    options = dict(norm_cfg)
    kind = options.pop("type", None)
    requires_grad = options.pop("requires_grad", True)
    options.pop("_scope_", None)
    if kind in NORMS and not set(options) <= {"eps", "momentum", "num_groups"}:
        raise UserError(f"norm_cfg {dict(norm_cfg)} has an option besides type, requires_grad, eps, momentum and"
                        " num_groups; remove it")  # fmt: skip

    def norm(channels: int) -> nn.Module:
        layer = _ours(kind, channels, options) if kind in NORMS else _mmcv(kind, channels, options)
        for parameter in layer.parameters():
            parameter.requires_grad_(requires_grad)
        return layer

    return norm


def _ours(kind: str, channels: int, options: dict[str, Any]) -> nn.Module:
    if kind == "GN" and "num_groups" in options:
        groups = max(g for g in range(1, options["num_groups"] + 1) if channels % g == 0)
        return nn.GroupNorm(groups, channels, eps=options.get("eps", EPS))
    layer = NORMS[kind](channels)
    for name, value in options.items():
        if not hasattr(layer, name):
            raise UserError(f"the norm {kind} has no option {name}; remove it from norm_cfg")
        setattr(layer, name, value)
    return layer


def _mmcv(kind: Any, channels: int, options: dict[str, Any]) -> nn.Module:
    from mmcv.cnn import build_norm_layer

    try:
        return build_norm_layer({"type": kind, **options}, channels)[1]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"there is no norm of type {kind!r} with the options {options}; choose one of {', '.join(NORMS)}"
            " or one that MMCV has registered"
        ) from error
