"""The trunk as a Detectron2 backbone, bare or with an FPN. Channels and strides always come from the architecture."""

from __future__ import annotations

import math
from itertools import pairwise

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, ROI_HEADS_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import nn

from ...arch import Arch
from ...errors import UserError
from ...trunk import RegNet
from .config import arch_from_config
from .retinanet import TopLevels

# The features that an FPN takes when the config names none, by stride; heads ask for levels above p5 by name.
FPN_STRIDES, RETINANET_STRIDES = range(4, 33), range(8, 33)


class RegNetBackbone(RegNet, Backbone):
    """:class:`regnet_backbones.RegNet`, arguments and all, under Detectron2's interface; no prefix of its own."""

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {name: ShapeSpec(channels=self.channels[name], stride=self.strides[name]) for name in self.out_features}

    @property
    def size_divisibility(self) -> int:
        # Heads that upsample features onto each other need every one to be exactly half of the one before.
        return self.strides[self.built[-1]]


@BACKBONE_REGISTRY.register()
def build_regnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> RegNetBackbone:
    """The trunk that ``MODEL.REGNET`` and ``MODEL.BACKBONE.FREEZE_AT`` describe, without a neck."""
    return _fitting_heads(cfg, _trunk(cfg, arch_from_config(cfg), input_shape, cfg.MODEL.REGNET.OUT_FEATURES))


@BACKBONE_REGISTRY.register()
def build_regnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """The trunk with an FPN, p2 to p6 for four stages; the last level is max-pooled."""
    return _fpn(cfg, input_shape, FPN_STRIDES)


@BACKBONE_REGISTRY.register()
def build_retinanet_regnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """The trunk with RetinaNet's FPN: p3 up, and two more levels convolved out of the trunk's last feature."""
    return _fpn(cfg, input_shape, RETINANET_STRIDES)


BUILDERS = ("build_regnet_backbone", "build_regnet_fpn_backbone", "build_retinanet_regnet_fpn_backbone")


def _trunk(cfg: CfgNode, arch: Arch, input_shape: ShapeSpec, out_features: list[str]) -> RegNetBackbone:
    node = cfg.MODEL.REGNET
    return RegNetBackbone(
        arch,
        out_features=out_features or None,
        output_stride=node.OUTPUT_STRIDE,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        norm=node.NORM,
        norm_eval=node.NORM_EVAL,
        drop_path=node.DROP_PATH,
        checkpointing=node.CHECKPOINTING,
        in_channels=input_shape.channels,
        allow_partial=node.ALLOW_PARTIAL,
    )


def _fpn(cfg: CfgNode, input_shape: ShapeSpec, strides: range) -> FPN:
    arch = arch_from_config(cfg)
    # A level that no head reads would leave parameters without a gradient, hence RetinaNet's other default.
    in_features = [*(cfg.MODEL.FPN.IN_FEATURES or cfg.MODEL.REGNET.OUT_FEATURES)] or [
        name for name, stride in arch.strides.items() if stride in strides
    ]
    trunk = _trunk(cfg, arch, input_shape, cfg.MODEL.REGNET.OUT_FEATURES or in_features)
    shapes = trunk.output_shape()
    _require_pyramid(trunk, in_features)
    in_features.sort(key=lambda name: shapes[name].stride)
    top = f"p{int(math.log2(shapes[in_features[-1]].stride))}"
    top_block: nn.Module
    if strides is RETINANET_STRIDES:
        top_block = _p6_p7(cfg, top if cfg.MODEL.FPN.P6_FROM_P5 else in_features[-1], shapes)
    else:
        top_block = LastLevelMaxPool()
        top_block.in_feature = top  # Detectron2 takes p5 whatever the pyramid ends with
    fpn = FPN(
        bottom_up=trunk,
        in_features=in_features,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
    return _fitting_heads(cfg, fpn)


def _p6_p7(cfg: CfgNode, source: str, shapes: dict[str, ShapeSpec]) -> TopLevels:
    out = cfg.MODEL.FPN.OUT_CHANNELS
    channels = shapes[source].channels if source in shapes else out
    return TopLevels(channels, out, source, relu_before_p7=cfg.MODEL.FPN.RELU_BEFORE_P7)


def _require_pyramid(trunk: RegNetBackbone, in_features: list[str]) -> None:
    shapes = trunk.output_shape()
    absent = [name for name in in_features if name not in shapes]
    if absent:
        raise UserError(
            f"MODEL.FPN.IN_FEATURES asks for {', '.join(absent)}, which the backbone does not put out"
            f" (MODEL.REGNET.OUT_FEATURES: {', '.join(shapes)}); name features that are in both"
        )
    strides = sorted(shapes[name].stride for name in in_features)
    if any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
        raise UserError(
            f"an FPN needs features whose strides double, but {', '.join(in_features)} have {strides}; choose"
            " others in MODEL.FPN.IN_FEATURES (MODEL.REGNET.OUTPUT_STRIDE is for heads without an FPN)"
        )


def _fitting_heads(cfg: CfgNode, backbone: Backbone) -> Backbone:
    """The backbone itself, once every head that the config builds on it is known to find its features."""
    model = cfg.MODEL
    parts = {
        "GeneralizedRCNN": ("RPN", "ROI_HEADS"),
        "ProposalNetwork": ("RPN",),
        "RetinaNet": ("RETINANET",),
        "ClippedRetinaNet": ("RETINANET",),
        "SemanticSegmentor": ("SEM_SEG_HEAD",),
        "PanopticFPN": ("RPN", "ROI_HEADS", "SEM_SEG_HEAD"),
    }.get(model.META_ARCHITECTURE, ())
    if "ROI_HEADS" in parts:
        _require_roi_heads(model.ROI_HEADS.NAME)
    features = backbone.output_shape()
    for part in parts:
        absent = [name for name in model[part].IN_FEATURES if name not in features]
        if absent:
            raise UserError(
                f"MODEL.{part}.IN_FEATURES asks for {', '.join(absent)}, but {model.BACKBONE.NAME} puts out"
                f" {', '.join(features)}; name some of these"
            )
    return backbone


def _require_roi_heads(name: str) -> None:
    advice = "use StandardROIHeads on build_regnet_fpn_backbone instead"
    if name not in ROI_HEADS_REGISTRY:
        only = "exists only in VISSL" if name == "Res5ROIHeadsExtraNorm" else "is not registered in Detectron2"
        raise UserError(f"MODEL.ROI_HEADS.NAME {name} {only}; register it, or {advice}")
    if name == "Res5ROIHeads":
        raise UserError(
            f"MODEL.ROI_HEADS.NAME Res5ROIHeads ends in a ResNet's last stage, which no RegNet has; {advice}"
        )
