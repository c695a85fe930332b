"""Hugging Face transformers: ``RegNetForImageClassification`` (``regnet.`` and a classifier) or ``RegNetModel``."""

from __future__ import annotations

from ...arch import Arch
from . import Format

_LAYER = "encoder.stages.{i-1}.layers.{j-1}"


def _cannot_hold(arch: Arch) -> str:
    if arch.block == "linear":
        return "its blocks end with an activation, RegNetZ's do not"
    if any(stage.bottleneck_width != stage.width for stage in arch.stages):
        return "it has no bottleneck narrower or wider than its block"
    if arch.se_ratio not in (0, 0.25):
        return f"its squeeze-and-excitation always has a quarter of the input's channels, not {arch.se_ratio:g}"
    group_width = max(stage.group_width for stage in arch.stages)
    if any(max(1, s.width // group_width) * s.group_width != s.width for s in arch.stages):
        return "it has one group width for all stages"
    return ""


FORMAT = Format(
    name="transformers",
    title="transformers' RegNet",
    table={
        "embedder.embedder.convolution": "stem.conv",
        "embedder.embedder.normalization": "stem.bn",
        f"{_LAYER}.shortcut.convolution": "s{i}.b{j}.proj",
        f"{_LAYER}.shortcut.normalization": "s{i}.b{j}.bn",
        f"{_LAYER}.layer.0.convolution": "s{i}.b{j}.f.a",
        f"{_LAYER}.layer.0.normalization": "s{i}.b{j}.f.a_bn",
        f"{_LAYER}.layer.1.convolution": "s{i}.b{j}.f.b",
        f"{_LAYER}.layer.1.normalization": "s{i}.b{j}.f.b_bn",
    },
    with_se={
        f"{_LAYER}.layer.2.attention.0": "s{i}.b{j}.f.se.f_ex.0",
        f"{_LAYER}.layer.2.attention.2": "s{i}.b{j}.f.se.f_ex.2",
        f"{_LAYER}.layer.3.convolution": "s{i}.b{j}.f.c",
        f"{_LAYER}.layer.3.normalization": "s{i}.b{j}.f.c_bn",
    },
    without_se={
        f"{_LAYER}.layer.2.convolution": "s{i}.b{j}.f.c",
        f"{_LAYER}.layer.2.normalization": "s{i}.b{j}.f.c_bn",
    },
    head="classifier.1",
    trunks=("regnet.", ""),
    written_trunk=("regnet.", ""),
    cannot_hold=_cannot_hold,
)
