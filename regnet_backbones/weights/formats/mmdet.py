"""MMDetection, and what ``open-mmlab://regnetx_*`` serves: ResNet's names in ``state_dict``; X only, four stages.

MMPretrain's trunk has the same names; what tells its files apart is its classifier, ``head.fc`` beside ``backbone``.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ...arch import Arch
from . import Format

TABLE = {
    "conv1": "stem.conv",
    "bn1": "stem.bn",
    "layer{i}.{j-1}.downsample.0": "s{i}.b{j}.proj",
    "layer{i}.{j-1}.downsample.1": "s{i}.b{j}.bn",
    "layer{i}.{j-1}.conv1": "s{i}.b{j}.f.a",
    "layer{i}.{j-1}.bn1": "s{i}.b{j}.f.a_bn",
    "layer{i}.{j-1}.conv2": "s{i}.b{j}.f.b",
    "layer{i}.{j-1}.bn2": "s{i}.b{j}.f.b_bn",
    "layer{i}.{j-1}.conv3": "s{i}.b{j}.f.c",
    "layer{i}.{j-1}.bn3": "s{i}.b{j}.f.c_bn",
}


def common_limits(arch: Arch) -> str:
    """What neither MMDetection's nor MMPretrain's RegNet can be."""
    if arch.se_ratio:
        return "it has no squeeze-and-excitation, as RegNetY and RegNetZ have"
    if arch.block == "linear":
        return "its blocks end with an activation, RegNetZ's do not"
    if len(arch.stages) != 4:
        return f"it has exactly 4 stages, not {len(arch.stages)}"
    if any(s.group_width == s.bottleneck_width != s.width for s in arch.stages):
        return "it gives a convolution of one group the block's width, not the bottleneck's"
    if arch.point and replace(arch.point, group_rounding="pycls").stages() != arch.stages:
        return "it rounds widths by pycls' rule, not by torchvision's"
    return ""


def _cannot_hold(arch: Arch) -> str:
    # MMDetection computes the 3x3's channels in floating point and rounds down.
    short = [s for s in arch.stages if math.floor(s.width * (s.group_width / s.width)) != s.group_width]
    if short:
        return f"it builds a stage of {short[0].width} channels in groups of {short[0].group_width} too narrow"
    return common_limits(arch)


FORMAT = Format(
    name="mmdet",
    title="MMDetection's RegNet",
    table=TABLE,
    head="fc",
    writes_head=False,
    trunks=("", "backbone."),
    rest="a part of the detector, not of its backbone",
    path=("state_dict",),
    wrap=lambda tensors: {"state_dict": tensors},
    containers=("torch",),
    channel_order="BGR",
    cannot_hold=_cannot_hold,
)
