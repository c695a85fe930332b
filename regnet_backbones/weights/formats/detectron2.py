"""Detectron2: pycls' names, alone or inside FPN and a detector; ``.pth``, or a ``.pkl`` of numpy arrays."""

from __future__ import annotations

from ...arch import Arch
from . import Format
from .pycls import TABLE


def _cannot_hold(arch: Arch) -> str:
    return "its blocks end with an activation, RegNetZ's do not" if arch.block == "linear" else ""


FORMAT = Format(
    name="detectron2",
    title="Detectron2's RegNet",
    table=TABLE,
    head="head.fc",
    writes_head=False,
    trunks=("", "backbone.bottom_up."),
    rest="a part of the detector, not of its backbone",
    path=("model",),
    # Without an author Detectron2 takes a pickle for Caffe2's; the heuristics let it find a detector's backbone.
    wrap=lambda tensors: {"model": tensors, "__author__": "regnet_backbones", "matching_heuristics": True},
    containers=("torch", "pickle"),
    channel_order="BGR",
    other_norms=True,
    cannot_hold=_cannot_hold,
)
