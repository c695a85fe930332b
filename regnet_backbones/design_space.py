"""RegNet's design space: a handful of numbers in, one width, depth and group width per stage out.

"Designing Network Design Spaces" (Radosavovic et al., CVPR 2020, section 3.2) fits block widths by the line
``u_j = w_0 + w_a * j``, quantizes them to powers of ``w_m`` times ``w_0``, and merges equal neighbours into
stages. Standard library only; Python's half-even ``round`` on float64 gives pycls' numbers exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import groupby

from .errors import UserError

STEM_STRIDE = 2
STAGE_STRIDE = 2  # every published RegNet halves the resolution once per stage
# Far beyond any network that fits a machine; they keep a slip of the keyboard from filling its memory.
MAX_DEPTH, MAX_WIDTH = 1000, 65536

GROUP_ROUNDINGS = ("pycls", "torchvision")
BLOCKS = ("bottleneck", "linear")


@dataclass(frozen=True)
class Stage:
    """``depth`` blocks of ``width`` channels; the 3x3 has ``bottleneck_width`` in groups of ``group_width``."""

    width: int
    depth: int
    group_width: int
    bottleneck_width: int
    stride: int = STAGE_STRIDE


@dataclass(frozen=True)
class DesignPoint:
    """One point of the space, in the paper's symbols.

    Attributes:
        depth: number of blocks in all stages together.
        w_0: width of the first block before quantization, a multiple of ``q``.
        w_a: slope of the width line, channels per block.
        w_m: ratio between the widths of neighbouring stages before rounding, above 1.
        group_width: channels per group of the 3x3 convolution.
        bot_mul: bottleneck width over block width, the inverse of the paper's ``b``.
        se_ratio: squeeze width over the width of the block's *input*; 0 means no squeeze-and-excitation.
        q: quantum that widths are rounded to.
        stem_width: channels of the stem.
        block: ``bottleneck`` (X and Y) or ``linear`` (Z: no last activation, no projection shortcut).
        activation: ``relu`` or ``silu``.
        group_rounding: how a bottleneck width becomes a multiple of the group width. ``pycls`` takes the
            nearest; ``torchvision`` the nearest, halves up, and the next one if that loses over 10 %.

    Raises:
        UserError: a parameter lies outside the space; the sentence names it, its value and the rule.
    """

    depth: int
    w_0: int
    w_a: float
    w_m: float
    group_width: int
    bot_mul: float = 1.0
    se_ratio: float = 0.0
    q: int = 8
    stem_width: int = 32
    block: str = "bottleneck"
    activation: str = "relu"
    group_rounding: str = "pycls"

    def __post_init__(self) -> None:
        for name in ("depth", "w_0", "group_width", "q", "stem_width"):
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        for name in ("w_a", "w_m", "bot_mul", "se_ratio"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        _rule("w_a", self.w_a, self.w_a >= 0, "must not be negative: widths never shrink with depth")
        _rule(
            "w_m",
            self.w_m,
            self.w_m > 1,
            "must be greater than 1: it is the ratio of neighbouring stages' widths",
        )
        _rule("depth", self.depth, self.depth <= MAX_DEPTH, f"must not exceed {MAX_DEPTH} blocks")
        last = self.w_0 + self.w_a * (self.depth - 1)
        _rule("w_a", self.w_a, last <= MAX_WIDTH, f"must not lead beyond {MAX_WIDTH} channels in the last block")
        _rule("w_0", self.w_0, self.w_0 % self.q == 0, f"must be a multiple of the quantum q={self.q}")
        _rule("bot_mul", self.bot_mul, self.bot_mul > 0, "must be greater than 0")
        _rule("se_ratio", self.se_ratio, 0 <= self.se_ratio <= 1, "must lie between 0 (no SE) and 1")
        _rule("block", self.block, self.block in BLOCKS, f"must be one of {', '.join(BLOCKS)}")
        _rule("activation", self.activation, self.activation in ("relu", "silu"), "must be relu or silu")
        _rule(
            "group_rounding",
            self.group_rounding,
            self.group_rounding in GROUP_ROUNDINGS,
            f"must be one of {', '.join(GROUP_ROUNDINGS)}",
        )
        self.stages()  # a group width that cannot divide shows only here

    def stages(self) -> tuple[Stage, ...]:
        """Stages from shallow to deep. Their number follows from the parameters; the named family has 4."""
        return tuple(
            _compatible_stage(width, len(list(blocks)), self) for width, blocks in groupby(self._block_widths())
        )

    def _block_widths(self) -> list[int]:
        """Quantized width of every block (equations 2 to 4 of the paper)."""
        widths = []
        for j in range(self.depth):
            u = self.w_0 + self.w_a * j
            s = round(math.log(u / self.w_0) / math.log(self.w_m))
            widths.append(round(self.w_0 * self.w_m**s / self.q) * self.q)
        return widths


def _compatible_stage(width: int, depth: int, point: DesignPoint) -> Stage:
    """Round the bottleneck to a multiple of the group width, and the block width after it.

    A bottleneck wider than the block (``bot_mul`` > 1) must divide by both, hence the least common multiple.
    """
    bottleneck = int(max(1, width * point.bot_mul))
    group_width = min(point.group_width, bottleneck)
    multiple = math.lcm(group_width, int(point.bot_mul)) if point.bot_mul > 1 else group_width
    if point.group_rounding == "torchvision":
        rounded = max(multiple, int(bottleneck + multiple / 2) // multiple * multiple)
        rounded += multiple if rounded < 0.9 * bottleneck else 0
    else:
        rounded = max(multiple, round(bottleneck / multiple) * multiple)
    width = int(rounded / point.bot_mul)
    if width < 1 or round(width * point.bot_mul) % group_width:
        raise UserError(
            f"group_width={point.group_width} cannot divide a stage's bottleneck of {width} channels x"
            f" bot_mul={point.bot_mul:g}; take a bot_mul of 1, a whole number or one over it"
        )
    return Stage(width, depth, group_width, round(width * point.bot_mul))


# The spellings of the same parameters in pycls and VISSL (upper case) and in MMDetection.
_SYNONYMS = {
    "w0": "w_0", "wa": "w_a", "wm": "w_m", "d": "depth", "group_w": "group_width", "g": "group_width",
    "se_r": "se_ratio", "stem_w": "stem_width",
}  # fmt: skip


def point_from(parameters: Mapping[str, object]) -> DesignPoint:
    """A point from parameters under the paper's, pycls', VISSL's or MMDetection's names, in any case.

    Raises:
        UserError: an unknown, missing or impossible parameter.
    """
    known = [field.name for field in fields(DesignPoint)]
    given: dict[str, object] = {}
    for key, value in parameters.items():
        name = _SYNONYMS.get(str(key).lower(), str(key).lower())
        if name not in known:
            raise UserError(f"'{key}' is not a RegNet parameter; there are {', '.join(known)}")
        if name in given:
            raise UserError(f"the RegNet parameter {name} is given twice, the second time as '{key}'; give it once")
        given[name] = value
    missing = [name for name in known[:5] if name not in given]
    if missing:
        raise UserError(f"a RegNet needs {', '.join(known[:5])}; missing: {', '.join(missing)}")
    return DesignPoint(**given)  # type: ignore[arg-type]


def parse_point(text: str) -> DesignPoint:
    """A point from ``depth=13,w_0=24,w_a=36.44,w_m=2.49,group_width=8``."""
    parameters = {}
    for item in filter(None, (part.strip() for part in text.replace(";", ",").split(","))):
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"'{item}' in '{text}' is not of the form name=value, as in w_a=36.44")
        parameters[key.strip()] = value.strip()
    return point_from(parameters)


def _number(name: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    _rule(name, value, math.isfinite(number) and not isinstance(value, bool), "must be a finite number")
    return number


def _whole(name: str, value: object) -> int:
    number = _number(name, value)
    _rule(name, value, number == int(number) and number >= 1, "must be a whole number of at least 1")
    return int(number)


def _rule(name: str, value: object, holds: bool, rule: str) -> None:
    if not holds:
        raise UserError(f"RegNet parameter {name}={value} is outside the design space: it {rule}")
