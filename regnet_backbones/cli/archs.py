"""``regnet-backbones archs`` and ``regnet-backbones describe``."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click

from ..arch import Arch, get_arch
from ..arch import archs as named_archs
from ..complexity import complexity
from ..errors import UserError
from .tables import print_table

_UNITS = "params and MACs count the 1000-class classifier too; acts are the elements that convolutions put out"


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and (width or height).isdigit()):
        raise UserError(f"--size {text} is not a size; write height x width in pixels, as in 800x1333, or one number")
    return int(height), int(width or height)


def _facts(arch: Arch, size: tuple[int, int]) -> dict[str, Any]:
    """Everything about ``arch`` at ``size`` in plain types, as ``--json`` prints it."""
    whole, trunk = complexity(arch, size), complexity(arch, size, num_classes=None)
    return {
        "name": arch.name,
        "parameters": dataclasses.asdict(arch.point) if arch.point else None,
        "stem_width": arch.stem_width,
        "se_ratio": arch.se_ratio,
        "block": arch.block,
        "activation": arch.activation,
        "widths": [stage.width for stage in arch.stages],
        "depths": [stage.depth for stage in arch.stages],
        "group_widths": [stage.group_width for stage in arch.stages],
        "bottleneck_widths": [stage.bottleneck_width for stage in arch.stages],
        "strides": arch.strides,
        "size": list(size),
        "params": whole.params,
        "flops": whole.flops,
        "acts": whole.acts,
        "trunk": {"params": trunk.params, "flops": trunk.flops, "acts": trunk.acts},
        "features": {
            name: {"channels": arch.channels[name], "stride": arch.strides[name], **counts}
            for name, counts in trunk.by_feature.items()
        },
    }


def _list(values: list[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 < len(values) else " ".join(map(str, values))


def _million(count: int, unit: float = 1e6) -> str:
    return f"{count / unit:,.2f}"


@click.command()
@click.option("--size", default="224x224", show_default=True, help="Image size, HxW.")
@click.option("--json", "as_json", is_flag=True, help="Exact numbers, for programs.")
def archs(size: str, as_json: bool) -> None:
    """List the named RegNets with their widths and complexity."""
    pixels = _size(size)
    facts = [_facts(arch, pixels) for arch in named_archs().values()]
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    rows = [
        [
            fact["name"],
            *(_list(fact[key]) for key in ("widths", "depths", "group_widths")),
            *(_million(fact[key]) for key in ("params", "flops", "acts")),
        ]
        for fact in facts
    ]
    columns = ["arch", "widths", "depths", "group widths", "params M", "MACs M", "acts M"]
    print_table(f"RegNets at {pixels[0]}x{pixels[1]}", columns, rows, _UNITS)


@click.command()
@click.argument("arch")
@click.option("--size", default="224x224", show_default=True, help="Image size, HxW.")
@click.option("--json", "as_json", is_flag=True, help="Exact numbers, for programs.")
def describe(arch: str, size: str, as_json: bool) -> None:
    """Describe one RegNet in full.

    ARCH is a name (regnety_4gf, RegNetY-4.0GF, regnety_040, regnetx_400mf_tv) or any point of the design space:
    depth=13,w_0=24,w_a=36.44,w_m=2.49,group_width=8,se_ratio=0.25
    """
    pixels = _size(size)
    network = get_arch(arch)
    facts = _facts(network, pixels)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    if network.point:
        click.echo(", ".join(f"{key}={value}" for key, value in dataclasses.asdict(network.point).items()))
    depths, groups = ["", *facts["depths"]], ["", *facts["group_widths"]]
    rows, before = [], {"params": 0, "flops": 0, "acts": 0}
    for i, (name, feature) in enumerate(facts["features"].items()):
        own = [_million(feature[key] - before[key]) for key in ("params", "flops", "acts")]
        shape = f"{feature['channels']}x{feature['height']}x{feature['width']}"
        rows.append([name, feature["stride"], shape, depths[i], groups[i], *own])
        before = feature
    rows.append(["trunk", "", "", "", "", *(_million(facts["trunk"][key]) for key in ("params", "flops", "acts"))])
    rows.append(["with classifier", "", "", "", "", *(_million(facts[key]) for key in ("params", "flops", "acts"))])
    columns = ["part", "stride", "CxHxW out", "depth", "group width", "params M", "MACs M", "acts M"]
    print_table(
        f"{network.name} at {pixels[0]}x{pixels[1]}", columns, rows, "MACs are multiply-adds; acts as pycls counts"
    )
