"""This project's own files: pycls' names, with metadata (see :func:`regnet_backbones.weights.file.save`)."""

from __future__ import annotations

from . import Format
from .pycls import TABLE

FORMAT = Format(
    name="ours",
    title="this project's own format",
    table=TABLE,
    head="head.fc",
    path=("model",),
    # The second entry makes Detectron2's own checkpointer find the backbone inside a detector.
    wrap=lambda tensors: {"model": tensors, "matching_heuristics": True},
    containers=("torch", "safetensors"),
    channel_order="",
    other_norms=True,
)
