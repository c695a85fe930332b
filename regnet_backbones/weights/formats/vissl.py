"""VISSL (SEER, SwAV): ClassyVision's blocks under ``_feature_blocks``, where stage i is called ``res{i+1}``."""

from __future__ import annotations

from . import Format
from .classyvision import PATH, block_table, wrap

FORMAT = Format(
    name="vissl",
    title="VISSL's RegNet",
    table={
        "_feature_blocks.conv1.stem.0": "stem.conv",
        "_feature_blocks.conv1.stem.1": "stem.bn",
        **block_table("_feature_blocks.res{i+1}.block{i}-{j-1}"),
    },
    writes_head=False,
    infix=r"\.block\d+-part\d+(?=\.)",  # how the 10-billion model was cut for sharded training
    path=PATH,
    wrap=wrap,
    containers=("torch",),
)
