"""Architectures: the named RegNets, any other point of the space, and a forgiving look-up over both.

An :class:`Arch` is all that the trunk, the complexity formulas and the weight formats ever see; none of them
knows ``w_a``. Parameters of X and Y: pycls ``configs/dds_baselines`` (the paper's table); Y-64GF, Y-128GF and
Y-256GF: SEER/SWAG as in timm's ``regnety_640/1280/2560``; Z: "Fast and Accurate Model Scaling" (Dollar et al.,
CVPR 2021) as in timm's ``regnetz_005/040``.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

from .design_space import STEM_STRIDE, DesignPoint, Stage, parse_point, point_from
from .errors import UserError


@dataclass(frozen=True)
class Arch:
    """A network as lists of stages.

    Attributes:
        name: canonical name (``RegNetY-4.0GF``), or the parameters when it has none.
        stages: stage ``i`` is called ``s{i + 1}`` and halves the resolution.
        stem_width: channels of the stem, stride 2.
        se_ratio: squeeze width over the block's input width, 0 without squeeze-and-excitation.
        block: ``bottleneck`` (X, Y) or ``linear`` (Z).
        activation: ``relu`` or ``silu``.
        point: the parameters it was generated from; None when it was read off a checkpoint.
    """

    name: str
    stages: tuple[Stage, ...]
    stem_width: int = 32
    se_ratio: float = 0.0
    block: str = "bottleneck"
    activation: str = "relu"
    point: DesignPoint | None = None

    @property
    def channels(self) -> dict[str, int]:
        """Feature name (``stem``, ``s1``, ...) to number of channels."""
        return {"stem": self.stem_width} | {f"s{i}": stage.width for i, stage in enumerate(self.stages, 1)}

    @property
    def strides(self) -> dict[str, int]:
        """Feature name to its stride with respect to the image."""
        strides = {"stem": STEM_STRIDE}
        for i, stage in enumerate(self.stages, 1):
            strides[f"s{i}"] = list(strides.values())[-1] * stage.stride
        return strides

    def squeeze_width(self, w_in: int) -> int:
        """Channels inside the squeeze-and-excitation of a block with ``w_in`` *input* channels; 0 if it has none."""
        return round(w_in * self.se_ratio)

    def same_network(self, other: Arch) -> bool:
        """Whether both describe the same layers, whatever their names and parameters."""
        return replace(self, name="", point=None) == replace(other, name="", point=None)


#        size   depth w_0  w_a     w_m   group_width
_ROWS = {
    "X": """
        200MF   13    24   36.44   2.49    8
        400MF   22    24   24.48   2.54   16
        600MF   16    48   36.97   2.24   24
        800MF   16    56   35.73   2.28   16
        1.6GF   18    80   34.01   2.25   24
        3.2GF   25    88   26.31   2.25   48
        4.0GF   23    96   38.65   2.43   40
        6.4GF   17   184   60.83   2.07   56
        8.0GF   23    80   49.56   2.88  120
        12GF    19   168   73.36   2.37  112
        16GF    22   216   55.59   2.1   128
        32GF    23   320   69.86   2.0   168
    """,
    "Y": """
        200MF   13    24   36.44   2.49    8
        400MF   16    48   27.89   2.09    8
        600MF   15    48   32.54   2.32   16
        800MF   14    56   38.84   2.4    16
        1.6GF   27    48   20.71   2.65   24
        3.2GF   21    80   42.63   2.66   24
        4.0GF   22    96   31.41   2.24   64
        6.4GF   25   112   33.22   2.27   72
        8.0GF   17   192   76.82   2.19   56
        12GF    19   168   73.36   2.37  112
        16GF    18   200  106.23   2.48  112
        32GF    20   232  115.89   2.53  232
        64GF    20   352  147.48   2.4   328
        128GF   27   456  160.83   2.52  264
        256GF   27   640  230.83   2.53  373
    """,
    "Z": """
        500MF   21    16   10.7    2.51    4
        4.0GF   28    48   14.5    2.226   8
    """,
}
_FAMILY_OPTIONS: dict[str, dict] = {
    "X": {},
    "Y": {"se_ratio": 0.25},
    "Z": {"se_ratio": 0.25, "bot_mul": 4.0, "block": "linear", "activation": "silu"},
}
# The sizes that torchvision publishes with other widths than pycls; at its other sizes both rules agree.
_TORCHVISION_SIZES = ("RegNetX-400MF", "RegNetY-800MF", "RegNetY-8.0GF")
_TV = "_tv"


def _named_points() -> Iterator[tuple[str, DesignPoint]]:
    for family, rows in _ROWS.items():
        for row in rows.strip().splitlines():
            size, *numbers = row.split()
            values = dict(zip(("depth", "w_0", "w_a", "w_m", "group_width"), numbers, strict=True))
            name = f"RegNet{family}-{size}"
            point = point_from(values | _FAMILY_OPTIONS[family])
            yield name, point
            if name in _TORCHVISION_SIZES:
                yield name + _TV, replace(point, group_rounding="torchvision")


def from_point(point: DesignPoint, name: str | None = None) -> Arch:
    """The network at ``point``; without ``name`` it is called by its parameters."""
    name = name or (
        f"RegNet(depth={point.depth},w_0={point.w_0},w_a={point.w_a:g},w_m={point.w_m:g},"
        f"group_width={point.group_width})"
    )
    return Arch(name, point.stages(), point.stem_width, point.se_ratio, point.block, point.activation, point)


@cache
def archs() -> dict[str, Arch]:
    """The named family: canonical name to architecture, in the paper's order."""
    return {name: from_point(point, name) for name, point in _named_points()}


def get_arch(spec: str | Mapping[str, object] | DesignPoint | Arch) -> Arch:
    """The architecture that ``spec`` means.

    Args:
        spec: a name in any usual spelling (``regnety_4gf``, ``RegNetY-4.0GF``, ``regnet_y_4gf``,
            ``regnety_040``; ``_tv`` appended means torchvision's width rounding), parameters as a mapping or as
            text (``depth=13,w_0=24,w_a=36.44,w_m=2.49,group_width=8``), a point, or an Arch as it is.

    Raises:
        UserError: an unknown name (the nearest ones are told) or parameters outside the space.
    """
    if isinstance(spec, Arch):
        return spec
    if isinstance(spec, DesignPoint):
        return _named_twin(from_point(spec))
    if isinstance(spec, Mapping):
        return _named_twin(from_point(point_from(spec)))
    if not isinstance(spec, str):
        raise UserError(f"a RegNet is named by a string or described by its parameters, not by {spec!r}")
    if "=" in spec:
        return _named_twin(from_point(parse_point(spec)))
    name = _canonical(spec)
    if name in archs():
        return archs()[name]
    if name:  # torchvision's rule on a size that torchvision does not publish
        point = archs()[name.removesuffix(_TV)].point
        return _named_twin(from_point(replace(point, group_rounding="torchvision"), name))
    raise UserError(f"there is no RegNet called '{spec}'; the nearest are {', '.join(_nearest(spec))}")


def identify(arch: Arch) -> Arch:
    """The named architecture with exactly these layers, or ``arch`` itself."""
    return _named_twin(arch)


def _named_twin(arch: Arch) -> Arch:
    return next((named for named in archs().values() if named.same_network(arch)), arch)


# regnety_4gf, RegNetY-4.0GF, regnet_y_1_6gf, facebook/regnet-y-040, regnetx_004_tv
_NAME = re.compile(
    r"(?:timm/|facebook/)?regnet[-_ ]?(?P<family>[xyz])[-_ ]?"
    r"(?:(?P<size>\d+(?:[._]\d+)?)(?P<unit>[mg])f|(?P<code>\d{3,4}))(?P<tv>[-_]tv)?",
)


def _parse(spec: str) -> tuple[str, float, str] | None:
    """Family, size in MF and rounding suffix that a name spells, whether or not there is such a RegNet."""
    match = _NAME.fullmatch(spec.strip().lower())
    if not match:
        return None
    if match["code"]:  # timm's code is the size in units of 100 MF
        megaflops = int(match["code"]) * 100.0
    else:
        megaflops = float(match["size"].replace("_", ".")) * (1000 if match["unit"] == "g" else 1)
    return f"RegNet{match['family'].upper()}-", megaflops, _TV if match["tv"] else ""


def _canonical(spec: str) -> str | None:
    family, megaflops, suffix = _parse(spec) or ("", 0.0, "")
    return next((name + suffix for name in _family(family) if _megaflops(name) == megaflops), None)


def _family(prefix: str) -> list[str]:
    return [name for name in archs() if prefix and name.startswith(prefix) and not name.endswith(_TV)]


def _megaflops(name: str) -> float:
    size = name.split("-")[1]
    return float(size[:-2]) * (1000 if size.endswith("GF") else 1)


def _nearest(spec: str, count: int = 3) -> list[str]:
    """By size within the family when the name spells one, by spelling otherwise."""
    family, megaflops, _ = _parse(spec) or ("", 0.0, "")
    if megaflops > 0:
        return sorted(_family(family), key=lambda name: abs(math.log(_megaflops(name) / megaflops)))[:count]
    plain = {name.lower().replace("-", ""): name for name in archs()}
    close = difflib.get_close_matches(re.sub(r"[-_ ]", "", spec.lower()), plain, n=count, cutoff=0.0)
    return [plain[name] for name in close]
