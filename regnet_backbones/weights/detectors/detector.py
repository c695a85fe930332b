"""Neck and heads of a detector, read from either framework and written for either.

In between they have Detectron2's names and its order of anchors. What else differs between the frameworks is not in
the tensors, or is the same: the package lists it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import UserError
from ..meta import Meta
from ..recognize import Recognized, check_values, shapes
from ..strict import COUNTER, compare
from .anchors import by_ratio, by_size
from .frameworks import BACKBONE
from .settings import checked, config_lines, default_settings
from .structure import c5_channels, expected_shapes, num_anchors, num_classes, require_batch_norm
from .tables import ANCHORED, TITLES, to_detectron2, to_mmdet

# Buffers of older Detectron2 and MMDetection checkpoints that the config makes anew.
_BUFFERS = re.compile(r"pixel_(mean|std)|(.*\.)?anchor_generator\.cell_anchors\.\d+|data_preprocessor\.(mean|std)")
_BUFFER_REASON = "a constant that the detector's config sets"


@dataclass
class Detector:
    """A detector without its trunk.

    Attributes:
        name: one of ``tables.TABLES``.
        state: Detectron2's names to tensors, in Detectron2's order of anchors.
        settings: see :mod:`.settings`.
        zeroed: names of batch norm's counters that the source lacks.
        left_out: reason to the source's keys that are neither in the trunk nor here.
    """

    name: str
    state: dict[str, Tensor]
    settings: dict[str, Any]
    zeroed: list[str]
    left_out: dict[str, list[str]]

    def __str__(self) -> str:
        have = shapes(self.state)
        counts = f"{num_classes(self.name, have)} classes, {num_anchors(self.name, have)} anchors per cell"
        return f"{TITLES[self.name]}, {counts}"

    def named(self, framework: str) -> dict[str, Tensor]:
        """Names and order of anchors of ``framework``."""
        if framework == "detectron2":
            return dict(self.state)
        rename = to_mmdet(self.name)
        ordered = _reordered(self.state, self.name, self.settings["anchor_ratios"], by_ratio)
        return {str(rename(name)): tensor for name, tensor in ordered.items()}

    def config_lines(self, framework: str) -> list[str]:
        """What to set in the target's config."""
        return config_lines(self.settings, framework)


def read_detector(found: Recognized, known: Meta, settings: Mapping[str, Any]) -> Detector:
    """Neck and heads around a recognized trunk.

    Args:
        found: the trunk and what the file holds beside it.
        known: metadata, whose ``settings`` count more than what is usual.
        settings: what the user states, which counts most.

    Raises:
        UserError: no detector, one that is not among ``tables.TABLES``, or one that is not whole.
    """
    framework, root = _framework(found)
    parts, buffers = _parts(found, root)
    name = _detector(found, framework, parts)
    require_batch_norm(shapes(parts))
    state = _renamed(found, framework, name, parts)
    check_values(found.path, state)
    stated = {key: value for key, value in known.settings.items() if key in default_settings(name, framework)}
    options = default_settings(name, framework) | _seen(name, state, found) | stated | checked(settings, name)
    zeroed = _complete(found, name, state)
    if framework != "detectron2":
        state = _reordered(state, name, options["anchor_ratios"], by_size)
    used = [root + key for key in parts]
    left = {reason: [k for k in keys if k not in {*used, *buffers}] for reason, keys in found.left_out.items()}
    left[_BUFFER_REASON] = buffers
    return Detector(name, state, options, zeroed, {reason: keys for reason, keys in left.items() if keys})


def _framework(found: Recognized) -> tuple[str, str]:
    """Whose detector it is, and the wrapper's prefix of its names."""
    for name in ("detectron2", "mmdet"):
        root = found.prefix.removesuffix(BACKBONE[name])
        if root != found.prefix and any(_is_part(name, key.removeprefix(root)) for key in found.rest):
            return name, root
    raise UserError(
        f"'{found.path}' holds a backbone, and no detector of Detectron2 or MMDetection around it; convert it without"
        " --whole-detector"
    )


def _is_part(framework: str, key: str) -> bool:
    """Whether a key lies where the framework's detectors have their necks."""
    return key.startswith("backbone." if framework == "detectron2" else "neck.")


def _parts(found: Recognized, root: str) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of neck and heads by their name in the detector, and the keys of buffers."""
    inside = {key.removeprefix(root): tensor for key, tensor in found.rest.items() if key.startswith(root)}
    buffers = [key for key in inside if _BUFFERS.fullmatch(key)]
    return {key: tensor for key, tensor in inside.items() if key not in buffers}, [root + key for key in buffers]


def _detector(found: Recognized, framework: str, parts: Mapping[str, Tensor]) -> str:
    starts = {
        "detectron2": ("head.cls_subnet.", "proposal_generator.rpn_head.", "roi_heads.mask_head."),
        "mmdet": ("bbox_head.retina_", "rpn_head.", "roi_head.mask_head."),
    }[framework]
    retinanet, rcnn, mask = (any(key.startswith(start) for key in parts) for start in starts)
    if retinanet == rcnn:
        heads = ", ".join(sorted({_head(key) for key in parts}))
        raise UserError(
            f"'{found.path}' holds a detector that is none of {', '.join(TITLES.values())} (its parts: {heads});"
            " convert its backbone alone, without --whole-detector"
        )
    return "retinanet" if retinanet else "mask_rcnn" if mask else "faster_rcnn"


def _head(key: str) -> str:
    return ".".join(key.split(".")[:2])


def _renamed(found: Recognized, framework: str, name: str, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By Detectron2's names; a key outside of the table is an error, whichever side it comes from."""
    there, back = to_mmdet(name), to_detectron2(name)
    state, unknown = {}, []
    for key, tensor in parts.items():
        try:
            if framework == "detectron2":
                there(key)
            state[key if framework == "detectron2" else str(back(key))] = tensor
        except KeyError:
            unknown.append(key)
    if unknown:
        names = ", ".join(unknown[:8]) + (f" and {len(unknown) - 8} more" if len(unknown) > 8 else "")
        raise UserError(
            f"'{found.path}' reads as a {TITLES[name]}, which has no place for {names}; only plain"
            f" {', '.join(TITLES.values())} can be converted whole"
        )
    return state


def _seen(name: str, state: Mapping[str, Tensor], found: Recognized) -> dict[str, Any]:
    """Settings that the shapes do tell."""
    p6 = state.get("backbone.top_block.p6.weight")
    return {"p6_from_p5": p6.shape[1] != c5_channels(found.arch)} if name == "retinanet" and p6 is not None else {}


def _complete(found: Recognized, name: str, state: dict[str, Tensor]) -> list[str]:
    """Fills the counters that Detectron2 drops, and says which; anything else that is missing is an error."""
    expected = expected_shapes(name, found.arch, shapes(state))
    misfit = compare(expected, shapes(state))
    if not misfit.complete:
        raise UserError(f"'{found.path}' is no whole {TITLES[name]}: {misfit.sentence('its neck and heads')}")
    zeroed = [key for key in expected if key.endswith(COUNTER) and key not in state]
    state |= {key: torch.zeros((), dtype=torch.long) for key in zeroed}
    return zeroed


def _reordered(state: Mapping[str, Tensor], name: str, ratios: int, order: Any) -> dict[str, Tensor]:
    anchors = num_anchors(name, shapes(state))
    moved = {module + leaf for module in ANCHORED[name] for leaf in (".weight", ".bias")}
    return {key: order(tensor, anchors, ratios) if key in moved else tensor for key, tensor in state.items()}
