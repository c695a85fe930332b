"""The formats that weights come in: one file each, whose :data:`FORMAT` is found by being here.

To add a format, add a file: a table of module names (see :mod:`regnet_backbones.weights.rename`), where the
state dict sits in its container, and which architectures it cannot hold.
"""

from __future__ import annotations

import pkgutil
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module

from ...arch import Arch
from ...errors import UserError
from ..rename import Rename, inverse, placed

Table = Mapping[str, "str | None"]


def _anything(arch: Arch) -> str:
    return ""


@dataclass(frozen=True)
class Format:
    """One framework's way to write a RegNet.

    Attributes:
        name: as after ``--to``.
        title: as in a sentence.
        table: their module name to ours, for the trunk.
        with_se, without_se: further rows where squeeze-and-excitation changes other modules' names.
        head: their name of the linear classifier, "" when they have none.
        writes_head: whether a file written for them may carry it.
        trunks: prefixes under which their own models hold the trunk.
        written_trunk: the one of them to write, with a head and without.
        rest: why the other modules of a whole model are left out; "" when they have none, so that each is an error.
        reasons: why a row of the table drops its module.
        infix: a pattern to remove from their keys before anything else.
        path: keys that lead from the container to the state dict.
        wrap: puts a state dict into the container.
        containers: what a file may be (see :mod:`regnet_backbones.weights.file`).
        channel_order: of the weights they publish; "" when they publish none.
        other_norms: whether their norms without running statistics are the ones that this project's trunk has.
        cannot_hold: why they cannot hold an architecture, "" when they can.
        look_alikes: a module's name in another network with similar keys, and what that network is.
    """

    name: str
    title: str
    table: Table
    with_se: Table = field(default_factory=dict)
    without_se: Table = field(default_factory=dict)
    head: str = ""
    writes_head: bool = True
    trunks: tuple[str, ...] = ("",)
    written_trunk: tuple[str, str] = ("", "")
    rest: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict)
    infix: str = ""
    path: tuple[str, ...] = ()
    wrap: Callable[[dict], dict] = OrderedDict
    containers: tuple[str, ...] = ("torch", "safetensors")
    channel_order: str = "RGB"
    other_norms: bool = False
    cannot_hold: Callable[[Arch], str] = _anything
    look_alikes: Mapping[str, str] = field(default_factory=dict)

    def to_ours(self) -> Rename:
        """From their trunk's names to ours; whatever the architecture."""
        return Rename({**self.table, **self.with_se, **self.without_se})

    def from_ours(self, arch: Arch) -> Rename:
        """From our trunk's names to theirs."""
        return Rename(inverse({**self.table, **(self.with_se if arch.se_ratio else self.without_se)}))

    def signature(self) -> tuple[str, str]:
        """Two keys that every trunk of theirs has: the stem's convolution and the first grouped 3x3."""
        theirs = inverse(self.table)
        return f"{theirs['stem.conv']}.weight", f"{placed(theirs['s{i}.b{j}.f.b'], 1, 1)}.weight"


@cache
def formats() -> dict[str, Format]:
    """Every format by name, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    found = [import_module(f".{name}", __name__).FORMAT for name in names]
    return {fmt.name: fmt for fmt in found}


def get_format(name: str) -> Format:
    """The format called ``name``.

    Raises:
        UserError: there is none; the sentence lists them.
    """
    key = name.lower().replace("-", "").replace("_", "")
    if key not in formats():
        raise UserError(f"there is no weight format called '{name}'; choose one of {', '.join(formats())}")
    return formats()[key]
