"""MMPretrain: MMDetection's names under ``backbone.``, with the classifier ``head.fc`` beside it."""

from __future__ import annotations

from . import Format
from .mmdet import TABLE, common_limits

FORMAT = Format(
    name="mmpretrain",
    title="MMPretrain's RegNet",
    table=TABLE,
    head="head.fc",
    trunks=("backbone.",),
    written_trunk=("backbone.", "backbone."),
    path=("state_dict",),
    wrap=lambda tensors: {"state_dict": tensors},
    containers=("torch",),
    channel_order="BGR",
    cannot_hold=common_limits,
)
