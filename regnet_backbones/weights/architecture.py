"""From the shapes of a checkpoint to its architecture, and from an architecture to the shapes it must have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from ..arch import Arch, get_arch, identify
from ..design_space import Stage
from ..errors import UserError
from .rename import LEAVES
from .strict import COUNTER, Fit, Shape, compare

HEAD = "head.fc."
_BLOCK = re.compile(r"s(\d+)\.b(\d+)\.")


@dataclass(frozen=True)
class Layout:
    """Everything about a checkpoint's shapes that its architecture leaves open.

    ``num_classes`` is 0 without a head; ``batch_norm`` is False where the norms keep no statistics (GN, LN).
    """

    in_channels: int = 3
    num_classes: int = 0
    batch_norm: bool = True


def layout(shapes: Mapping[str, Shape]) -> Layout:
    """The layout of a state dict with our names."""
    head = shapes.get(HEAD + "weight", (0,))
    return Layout(
        in_channels=_axis(shapes, "stem.conv", 1),
        num_classes=head[0],
        batch_norm=any(name.endswith("running_mean") for name in shapes),
    )


def expected_shapes(arch: Arch, layout: Layout | None = None) -> dict[str, Shape]:
    """Name to shape of every tensor of ``arch``, in the trunk's order. Strings and numbers only: no torch."""
    layout = layout or Layout()
    shapes: dict[str, Shape] = {}
    shapes["stem.conv.weight"] = (arch.stem_width, layout.in_channels, 3, 3)
    _add_norm(shapes, "stem.bn", arch.stem_width, layout)
    w_in = arch.stem_width
    for i, stage in enumerate(arch.stages, 1):
        for j in range(1, stage.depth + 1):
            projects = (j == 1 and stage.stride != 1) or w_in != stage.width
            if projects and arch.block == "bottleneck":
                shapes[f"s{i}.b{j}.proj.weight"] = (stage.width, w_in, 1, 1)
                _add_norm(shapes, f"s{i}.b{j}.bn", stage.width, layout)
            _add_transform(shapes, f"s{i}.b{j}.f", w_in, stage, arch.squeeze_width(w_in), layout)
            w_in = stage.width
    if layout.num_classes:
        shapes[HEAD + "weight"], shapes[HEAD + "bias"] = (layout.num_classes, w_in), (layout.num_classes,)
    return shapes


def _add_transform(shapes: dict[str, Shape], f: str, w_in: int, stage: Stage, w_se: int, layout: Layout) -> None:
    w_b = stage.bottleneck_width
    shapes[f"{f}.a.weight"] = (w_b, w_in, 1, 1)
    _add_norm(shapes, f"{f}.a_bn", w_b, layout)
    shapes[f"{f}.b.weight"] = (w_b, stage.group_width, 3, 3)
    _add_norm(shapes, f"{f}.b_bn", w_b, layout)
    if w_se:
        shapes[f"{f}.se.f_ex.0.weight"], shapes[f"{f}.se.f_ex.0.bias"] = (w_se, w_b, 1, 1), (w_se,)
        shapes[f"{f}.se.f_ex.2.weight"], shapes[f"{f}.se.f_ex.2.bias"] = (w_b, w_se, 1, 1), (w_b,)
    shapes[f"{f}.c.weight"] = (stage.width, w_b, 1, 1)
    _add_norm(shapes, f"{f}.c_bn", stage.width, layout)


def _add_norm(shapes: dict[str, Shape], name: str, channels: int, layout: Layout) -> None:
    leaves = LEAVES if layout.batch_norm else LEAVES[:2]
    shapes.update({f"{name}.{leaf}": () if leaf == COUNTER else (channels,) for leaf in leaves})


def fit(arch: Arch, shapes: Mapping[str, Shape]) -> Fit:
    """How a state dict with our names fits ``arch``, both ways."""
    return compare(expected_shapes(arch, layout(shapes)), shapes)


def arch_of(shapes: Mapping[str, Shape]) -> Arch:
    """The architecture of a trunk, read off its tensors: a named one where the layers are the same.

    Args:
        shapes: our names to shapes, the whole trunk.

    Raises:
        UserError: a block is missing, or the shapes belong to no RegNet.
    """
    depths = _depths(shapes)
    stages = [_stage(shapes, f"s{i}.b1.f", depth) for i, depth in enumerate(depths, 1)]
    linear = not any(".proj." in name for name in shapes)
    arch = Arch(
        name="",
        stages=tuple(stages),
        stem_width=_axis(shapes, "stem.conv", 0),
        se_ratio=_se_ratio(shapes, depths),
        block="linear" if linear else "bottleneck",
        activation="silu" if linear else "relu",  # of all published RegNets with and without linear blocks
    )
    named = identify(arch)
    return named if named.name else replace(arch, name=describe(arch))


def describe(arch: Arch) -> str:
    """A name for an architecture that has none, from its stages."""
    lists = {
        "depths": [stage.depth for stage in arch.stages],
        "widths": [stage.width for stage in arch.stages],
        "group_widths": [stage.group_width for stage in arch.stages],
    }
    if any(stage.bottleneck_width != stage.width for stage in arch.stages):
        lists["bottleneck_widths"] = [stage.bottleneck_width for stage in arch.stages]
    parts = [f"{name}={'-'.join(map(str, numbers))}" for name, numbers in lists.items()]
    if arch.se_ratio:
        parts.append(f"se_ratio={arch.se_ratio:g}")
    return f"RegNet({', '.join(parts)})"


def spec(arch: Arch) -> str:
    """What :func:`regnet_backbones.get_arch` builds ``arch`` from: its name, else its parameters, if it has any."""
    if (identify(arch).name == arch.name and "(" not in arch.name) or arch.point is None:
        return arch.name
    defaults = {f.name: f.default for f in fields(arch.point)}
    values = {f.name: getattr(arch.point, f.name) for f in fields(arch.point)}
    return ",".join(f"{name}={value}" for name, value in values.items() if value != defaults[name])


def known_as(text: str, arch: Arch) -> Arch:
    """The architecture that metadata names by ``text``, if it is the one in the file; else ``arch``.

    It knows what shapes do not tell: the activation and the parameters.
    """
    try:
        stated = get_arch(text)
    except UserError:
        return arch
    return stated if expected_shapes(stated) == expected_shapes(arch) else arch


def _stage(shapes: Mapping[str, Shape], transform: str, depth: int) -> Stage:
    bottleneck, group_width = _axis(shapes, f"{transform}.a", 0), _axis(shapes, f"{transform}.b", 1)
    if bottleneck % group_width:
        raise UserError(f"'{transform}.b' (in this project's names) divides {bottleneck} channels by {group_width}")
    return Stage(_axis(shapes, f"{transform}.c", 0), depth, group_width, bottleneck)


def _axis(shapes: Mapping[str, Shape], module: str, axis: int) -> int:
    shape = shapes.get(f"{module}.weight")
    if shape is None:
        raise UserError(f"the checkpoint has no '{module}.weight' (in this project's names), so it is no whole RegNet")
    if len(shape) != 4 or not all(shape):
        raise UserError(f"'{module}.weight' (in this project's names) has the shape {tuple(shape)}: no convolution's")
    return shape[axis]


def _depths(shapes: Mapping[str, Shape]) -> list[int]:
    """Blocks per stage; stages and blocks must count up from 1 without a gap."""
    blocks: dict[int, set[int]] = {}
    for name in shapes:
        if match := _BLOCK.match(name):
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
    for i in range(1, max(blocks, default=1) + 1):
        found = blocks.get(i, set())
        lacking = next(
            (j for j in range(1, len(found) + 2) if j not in found and (j < max(found, default=1) + 1)), None
        )
        if lacking:
            raise UserError(f"the checkpoint has no block {lacking} of stage {i}, so it is no whole RegNet")
    return [len(blocks[i]) for i in sorted(blocks)]


def _se_ratio(shapes: Mapping[str, Shape], depths: Sequence[int]) -> float:
    """The ratio that gives every block's squeeze width from its input width, the published 1/4 if that does."""
    squeezes = []
    for i, depth in enumerate(depths, 1):
        for j in range(1, depth + 1):
            name = f"s{i}.b{j}.f.se.f_ex.0.weight"
            if name in shapes:
                squeezes.append((_axis(shapes, f"s{i}.b{j}.f.a", 1), _axis(shapes, name.removesuffix(".weight"), 0)))
    if not squeezes:
        return 0.0
    low = max((w_se - 0.5) / w_in for w_in, w_se in squeezes)
    high = min((w_se + 0.5) / w_in for w_in, w_se in squeezes)
    for ratio in (0.25, 0.5, 0.125, 0.0625, 1.0, (low + high) / 2):
        if all(round(w_in * ratio) == w_se for w_in, w_se in squeezes):
            return ratio
    raise UserError(
        "the squeeze widths of the checkpoint follow no single ratio to the blocks' input widths, as RegNet's do"
        f" (the first block squeezes {squeezes[0][0]} channels to {squeezes[0][1]})"
    )
