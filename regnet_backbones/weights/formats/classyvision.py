"""ClassyVision: ``classy_state_dict`` with trunk and heads apart; the heads' form depends on the task."""

from __future__ import annotations

from . import Format

PATH = ("classy_state_dict", "base_model", "model", "trunk")


def block_table(block: str) -> dict[str, str]:
    """The rows of one block, whose own name is ``block``."""
    return {
        f"{block}.proj": "s{i}.b{j}.proj",
        f"{block}.bn": "s{i}.b{j}.bn",
        f"{block}.f.a.0": "s{i}.b{j}.f.a",
        f"{block}.f.a.1": "s{i}.b{j}.f.a_bn",
        f"{block}.f.b.0": "s{i}.b{j}.f.b",
        f"{block}.f.b.1": "s{i}.b{j}.f.b_bn",
        f"{block}.f.se.excitation.0": "s{i}.b{j}.f.se.f_ex.0",
        f"{block}.f.se.excitation.2": "s{i}.b{j}.f.se.f_ex.2",
        f"{block}.f.c": "s{i}.b{j}.f.c",
        f"{block}.f.final_bn": "s{i}.b{j}.f.c_bn",
    }


def wrap(trunk: dict) -> dict:
    """A checkpoint of ClassyVision and VISSL around a trunk's state dict, without heads."""
    return {"classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": {}}}}}


FORMAT = Format(
    name="classyvision",
    title="ClassyVision's RegNet",
    table={
        "stem.stem.0": "stem.conv",
        "stem.stem.1": "stem.bn",
        **block_table("trunk_output.block{i}.block{i}-{j-1}"),
    },
    writes_head=False,
    path=PATH,
    wrap=wrap,
    containers=("torch",),
)
