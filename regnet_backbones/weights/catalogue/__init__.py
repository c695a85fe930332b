"""Published RegNet weights: one table per publisher beside this file, read into :class:`Published` rows.

A row is called ``<arch>.<publisher>_<tag>``: the architecture as ``get_arch`` writes it in lower case
(``regnety_4gf``, ``regnetx_400mf_tv``; the publisher's own size where the family has no such name), the table it
is in, and what its publisher calls it. ``regnet://`` before the name makes it an address for configs.

What cannot be learned from the tensors is stated here once, so that nobody has to remember it: the channel order,
the pixel statistics, and the files that break their publisher's habit. A value that the publisher does not state
is empty.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from ...arch import get_arch
from ...errors import UserError
from ..meta import Meta

SCHEME = "regnet://"
TASKS = ("classifier", "features", "detector")  # the second: trained without labels, has no classifier


@dataclass(frozen=True)
class Published:
    """One file that somebody published.

    Attributes:
        name: see the module.
        publisher: the table that the row is in.
        url: where the file is.
        format: its format, as after ``convert --from``.
        task: one of :data:`TASKS`.
        data: what it was trained on.
        channel_order: of the images that the network expects, RGB or BGR.
        pixel_mean, pixel_std: on the 0..255 scale, in that order.
        source: the publisher's file that states all this.
        arch: canonical name or parameters of the network; "" where the publisher leaves it open.
        top1: ImageNet-1k accuracy in percent, of images of ``top1_size`` pixels.
        box_ap, mask_ap: of a detector on COCO val2017, in percent.
        config: the publisher's configuration of a detector, or of a training.
        checksum: ``sha256:`` or ``md5:`` and the hexadecimal digits, or only the first of them.
        size_mib: size of the file in MiB.
        licence: of the weights.
        alias: another address by which the publisher's framework knows the file.
        notes: sentences for a person.
    """

    name: str
    publisher: str
    url: str
    format: str
    task: str
    data: str
    channel_order: str
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    source: str
    arch: str = ""
    top1: float | None = None
    top1_size: int | None = None
    box_ap: float | None = None
    mask_ap: float | None = None
    config: str = ""
    checksum: str = ""
    size_mib: float | None = None
    licence: str = ""
    alias: str = ""
    notes: tuple[str, ...] = ()

    def meta(self, sha256: str = "") -> Meta:
        """What must travel with the tensors once the file is here."""
        return Meta(
            arch=self.arch,
            format=self.format,
            channel_order=self.channel_order,
            pixel_mean=self.pixel_mean,
            pixel_std=self.pixel_std,
            source=self.url,
            sha256=sha256,
            name=self.name,
            notes=list(self.notes),
        )


@cache
def catalogue() -> dict[str, Published]:
    """Every row by name, sorted by publisher, in the publisher's order."""
    tables = sorted(path.name for path in resources.files(__package__).iterdir() if path.name.endswith(".json"))
    rows = [row for table in tables for row in _read(table.removesuffix(".json"))]
    return {row.name: row for row in rows}


def _read(publisher: str) -> list[Published]:
    table = json.loads(resources.files(__package__).joinpath(f"{publisher}.json").read_text(encoding="utf-8"))
    rows = [{"publisher": publisher} | table["common"] | row for row in table["rows"]]
    lists = ("pixel_mean", "pixel_std", "notes")
    return [Published(**row | {key: tuple(row[key]) for key in lists if key in row}) for row in rows]


def arch_key(name: str) -> str:
    """The architecture in a row's name: ``RegNetY-4.0GF`` to ``regnety_4gf``."""
    return name.lower().replace("-", "_").replace(".0gf", "gf")


def lookup(name: str) -> Published | None:
    """The row of a name in any usual spelling of its architecture, of an address or of an alias; None if none."""
    name = name.removeprefix(SCHEME)
    if name in catalogue():
        return catalogue()[name]
    arch, _, tag = name.rpartition(".")
    if arch and "/" not in name:
        try:
            return catalogue().get(f"{arch_key(get_arch(arch).name)}.{tag.lower()}")
        except UserError:
            return None
    return next((row for row in catalogue().values() if name in (row.url, row.alias)), None)


def find(name: str) -> Published:
    """The row that :func:`lookup` finds.

    Raises:
        UserError: there is none; the nearest names are told.
    """
    row = lookup(name)
    if row is None:
        raise UserError(
            f"there is no published weight called '{name.removeprefix(SCHEME)}'; the nearest are"
            f" {', '.join(nearest(name))} (`regnet-backbones weights list` shows all)"
        )
    return row


def nearest(name: str, count: int = 3) -> list[str]:
    """Names like ``name``: of the same architecture if it names one, by spelling otherwise."""
    name = name.removeprefix(SCHEME)
    arch, _, tag = name.rpartition(".")
    try:
        known = get_arch(arch if arch and not tag[:1].isdigit() else name).name
        names = [row.name for row in catalogue().values() if row.arch == known]
        name = f"{arch_key(known)}.{tag}"
    except UserError:
        names = list(catalogue())
    return difflib.get_close_matches(name.lower(), names, n=count, cutoff=0.0)
