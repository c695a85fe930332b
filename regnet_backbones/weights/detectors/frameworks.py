"""Who holds a whole detector: where its trunk is, and in which names.

``detectron2``: Detectron2, whose own RegNet and this project's have the same names.
``mmdet``: MMDetection with this project's backbone, which holds any architecture.
``mmdet-regnet``: MMDetection with its own RegNet, X only, as it publishes its checkpoints.
"""

from __future__ import annotations

from dataclasses import replace

from ...errors import UserError
from ..formats import Format, get_format

BACKBONE = {"detectron2": "backbone.bottom_up.", "mmdet": "backbone.", "mmdet-regnet": "backbone."}


def get_framework(name: str) -> Format:
    """How ``name`` writes a detector: a trunk's format, with the trunk's place in the detector.

    Raises:
        UserError: there is none; the sentence lists them.
    """
    key = name.lower().replace("_", "-")
    if key not in BACKBONE:
        raise UserError(f"whole detectors cannot be written for '{name}'; choose one of {', '.join(BACKBONE)}")
    return {"detectron2": _detectron2, "mmdet": _mmdet, "mmdet-regnet": _mmdet_regnet}[key]()


def _detectron2() -> Format:
    # The author keeps Detectron2 from taking a pickle for Caffe2's. No heuristics: every name is exact.
    return replace(
        get_format("detectron2"),
        title="Detectron2",
        written_trunk=(BACKBONE["detectron2"],) * 2,
        wrap=lambda tensors: {"model": tensors, "__author__": "regnet_backbones"},
    )


def _mmdet() -> Format:
    return replace(
        get_format("ours"),
        name="mmdet",
        title="MMDetection with this project's backbone",
        writes_head=False,
        written_trunk=(BACKBONE["mmdet"],) * 2,
        path=("state_dict",),
        wrap=lambda tensors: {"state_dict": tensors},
        containers=("torch",),
    )


def _mmdet_regnet() -> Format:
    return replace(get_format("mmdet"), name="mmdet-regnet", written_trunk=(BACKBONE["mmdet-regnet"],) * 2)
