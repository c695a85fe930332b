"""torchvision: a plain state dict; its Conv2dNormActivation numbers convolution and norm 0 and 1."""

from __future__ import annotations

from ...arch import Arch
from . import Format


def _cannot_hold(arch: Arch) -> str:
    return "its blocks end with an activation, RegNetZ's do not" if arch.block == "linear" else ""


FORMAT = Format(
    name="torchvision",
    title="torchvision's RegNet",
    table={
        "stem.0": "stem.conv",
        "stem.1": "stem.bn",
        "trunk_output.block{i}.block{i}-{j-1}.proj.0": "s{i}.b{j}.proj",
        "trunk_output.block{i}.block{i}-{j-1}.proj.1": "s{i}.b{j}.bn",
        "trunk_output.block{i}.block{i}-{j-1}.f.a.0": "s{i}.b{j}.f.a",
        "trunk_output.block{i}.block{i}-{j-1}.f.a.1": "s{i}.b{j}.f.a_bn",
        "trunk_output.block{i}.block{i}-{j-1}.f.b.0": "s{i}.b{j}.f.b",
        "trunk_output.block{i}.block{i}-{j-1}.f.b.1": "s{i}.b{j}.f.b_bn",
        "trunk_output.block{i}.block{i}-{j-1}.f.se.fc1": "s{i}.b{j}.f.se.f_ex.0",
        "trunk_output.block{i}.block{i}-{j-1}.f.se.fc2": "s{i}.b{j}.f.se.f_ex.2",
        "trunk_output.block{i}.block{i}-{j-1}.f.c.0": "s{i}.b{j}.f.c",
        "trunk_output.block{i}.block{i}-{j-1}.f.c.1": "s{i}.b{j}.f.c_bn",
    },
    head="fc",
    cannot_hold=_cannot_hold,
)
