"""pycls: ``.pyth`` files with ``model_state``; the names are the ones this project uses too."""

from __future__ import annotations

from . import Format

TABLE = {
    "stem.conv": "stem.conv",
    "stem.bn": "stem.bn",
    "s{i}.b{j}.proj": "s{i}.b{j}.proj",
    "s{i}.b{j}.bn": "s{i}.b{j}.bn",
    "s{i}.b{j}.f.a": "s{i}.b{j}.f.a",
    "s{i}.b{j}.f.a_bn": "s{i}.b{j}.f.a_bn",
    "s{i}.b{j}.f.b": "s{i}.b{j}.f.b",
    "s{i}.b{j}.f.b_bn": "s{i}.b{j}.f.b_bn",
    "s{i}.b{j}.f.se.f_ex.0": "s{i}.b{j}.f.se.f_ex.0",
    "s{i}.b{j}.f.se.f_ex.2": "s{i}.b{j}.f.se.f_ex.2",
    "s{i}.b{j}.f.c": "s{i}.b{j}.f.c",
    "s{i}.b{j}.f.c_bn": "s{i}.b{j}.f.c_bn",
}

FORMAT = Format(
    name="pycls",
    title="pycls",
    table=TABLE,
    head="head.fc",
    path=("model_state",),
    wrap=lambda tensors: {"epoch": 0, "model_state": tensors},  # pycls' loader asks for the epoch
    containers=("torch",),
    channel_order="BGR",
)
