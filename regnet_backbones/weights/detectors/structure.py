"""Which tensors a detector must have, from the few sizes that it is free in; in Detectron2's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...arch import Arch
from ...errors import UserError
from ..rename import LEAVES
from ..strict import COUNTER, Shape

RPN = "proposal_generator.rpn_head"
BOX, PREDICTOR, MASK = "roi_heads.box_head", "roi_heads.box_predictor", "roi_heads.mask_head"
_FIRST_LEVEL = {"faster_rcnn": 2, "mask_rcnn": 2, "retinanet": 3}
LAST_LEVEL = 5  # the coarsest that is read off the trunk, stride 32


@dataclass
class _Builder:
    """Collects names and shapes; what is free is read off ``given``."""

    given: Mapping[str, Shape]
    shapes: dict[str, Shape] = field(default_factory=dict)

    def size(self, module: str, axis: int = 0) -> int:
        shape = self.given.get(f"{module}.weight", ())
        if len(shape) <= axis:
            raise UserError(f"the detector has no usable '{module}.weight' (in Detectron2's names), so it is not whole")
        return shape[axis]

    def add(self, module: str, *weight: int, bias: int | None = None) -> None:
        """A layer with a bias, or with batch norm in its place where the checkpoint has one."""
        self.shapes[f"{module}.weight"] = weight
        channels = weight[0] if bias is None else bias
        if f"{module}.norm.weight" in self.given:
            self.shapes |= {f"{module}.norm.{leaf}": () if leaf == COUNTER else (channels,) for leaf in LEAVES}
        else:
            self.shapes[f"{module}.bias"] = (channels,)

    def chain(self, pattern: str, channels: int, start: int = 0, step: int = 1) -> int:
        """3x3 convolutions on top of each other, as many as there are; the channels of the last."""
        i = start
        while f"{pattern.format(i)}.weight" in self.given:
            width = self.size(pattern.format(i))
            self.add(pattern.format(i), width, channels, 3, 3)
            channels, i = width, i + step
        return channels


def expected_shapes(detector: str, arch: Arch, given: Mapping[str, Shape]) -> dict[str, Shape]:
    """Name to shape of every tensor of neck and heads.

    Args:
        detector: one of ``tables.TABLES``.
        arch: the trunk that the FPN stands on.
        given: what the checkpoint has; it decides what is free: channels, numbers of layers, anchors and classes.

    Raises:
        UserError: a layer that nothing can stand in for is missing.
    """
    build = _Builder(given)
    channels = _neck(build, arch, _FIRST_LEVEL[detector])
    if detector == "retinanet":
        _retinanet(build, arch, channels)
    else:
        _rpn(build, channels)
        _box_head(build, channels)
    if detector == "mask_rcnn":
        _mask_head(build, channels)
    return build.shapes


def c5_channels(arch: Arch) -> int:
    """Channels of the trunk's feature of stride 32."""
    return _by_level(arch)[LAST_LEVEL]


def num_classes(detector: str, given: Mapping[str, Shape]) -> int:
    """Classes that a whole detector tells apart, without background."""
    if detector == "retinanet":
        return given["head.cls_score.weight"][0] // max(1, given["head.bbox_pred.weight"][0] // 4)
    return given[f"{PREDICTOR}.cls_score.weight"][0] - 1


def num_anchors(detector: str, given: Mapping[str, Shape]) -> int:
    """Anchors per cell."""
    name = "head.bbox_pred.weight" if detector == "retinanet" else f"{RPN}.anchor_deltas.weight"
    return given[name][0] // 4


def require_batch_norm(given: Mapping[str, Shape]) -> None:
    """GN and LN have the same tensors and other names on either side, so they are refused rather than guessed."""
    for name in given:
        if re.search(r"\.norm\.weight$", name) and name.removesuffix("weight") + "running_mean" not in given:
            raise UserError(
                f"the detector has another norm than batch norm in '{name}', whose kind its tensors do not tell;"
                " detectors with batch norm or without norms in neck and heads can be converted"
            )


def _by_level(arch: Arch) -> dict[int, int]:
    levels = {2**level: level for level in range(1, 8)}
    return {levels[stride]: arch.channels[name] for name, stride in arch.strides.items() if stride in levels}


def _neck(build: _Builder, arch: Arch, first: int) -> int:
    channels = build.size(f"backbone.fpn_lateral{first}")
    trunk = _by_level(arch)
    for level in range(first, LAST_LEVEL + 1):
        build.add(f"backbone.fpn_lateral{level}", channels, trunk.get(level, 0), 1, 1)
        build.add(f"backbone.fpn_output{level}", channels, channels, 3, 3)
    return channels


def _retinanet(build: _Builder, arch: Arch, channels: int) -> None:
    source = build.size("backbone.top_block.p6", 1)
    build.add("backbone.top_block.p6", channels, source if source == c5_channels(arch) else channels, 3, 3)
    build.add("backbone.top_block.p7", channels, channels, 3, 3)
    anchors = max(1, build.size("head.bbox_pred") // 4)
    classes = max(1, build.size("head.cls_score") // anchors)
    for subnet, output, count in (("cls_subnet", "cls_score", classes), ("bbox_subnet", "bbox_pred", 4)):
        width = build.chain(f"head.{subnet}.{{}}", channels, step=2)
        build.add(f"head.{output}", anchors * count, width, 3, 3)


def _rpn(build: _Builder, channels: int) -> None:
    if f"{RPN}.conv.weight" in build.given:
        width = build.size(f"{RPN}.conv")
        build.add(f"{RPN}.conv", width, channels, 3, 3)
    else:
        build.size(f"{RPN}.conv.conv0")
        width = build.chain(f"{RPN}.conv.conv{{}}", channels)
    anchors = build.size(f"{RPN}.objectness_logits")
    build.add(f"{RPN}.objectness_logits", anchors, width, 1, 1)
    build.add(f"{RPN}.anchor_deltas", 4 * anchors, width, 1, 1)


def _box_head(build: _Builder, channels: int) -> None:
    features = build.chain(f"{BOX}.conv{{}}", channels, start=1)
    # Both flatten (C, H, W) in this order, so the first layer needs no permutation; its area is the pooler's.
    width, i = build.size(f"{BOX}.fc1", 1), 1
    if width % features:
        raise UserError(f"'{BOX}.fc1.weight' reads {width} numbers, which are not {features} channels of a region")
    while f"{BOX}.fc{i}.weight" in build.given:
        build.add(f"{BOX}.fc{i}", build.size(f"{BOX}.fc{i}"), width)
        width, i = build.size(f"{BOX}.fc{i}"), i + 1
    classes = build.size(f"{PREDICTOR}.cls_score") - 1
    agnostic = build.size(f"{PREDICTOR}.bbox_pred") == 4
    build.add(f"{PREDICTOR}.cls_score", classes + 1, width)
    build.add(f"{PREDICTOR}.bbox_pred", 4 if agnostic else 4 * classes, width)


def _mask_head(build: _Builder, channels: int) -> None:
    width = build.chain(f"{MASK}.mask_fcn{{}}", channels, start=1)
    up = build.size(f"{MASK}.deconv", 1)
    build.add(f"{MASK}.deconv", width, up, 2, 2, bias=up)
    classes = build.size(f"{PREDICTOR}.cls_score") - 1
    agnostic = build.size(f"{MASK}.predictor") == 1
    build.add(f"{MASK}.predictor", 1 if agnostic else classes, up, 1, 1)
