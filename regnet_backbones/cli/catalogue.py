"""``regnet-backbones weights list``, ``show`` and ``get``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ..arch import archs, get_arch
from ..weights.catalogue import TASKS, Published, catalogue, find
from .tables import print_table

_COLUMNS = ["name", "task", "format", "order", "licence", "top-1 %", "box AP", "mask AP"]
_CAPTION = (
    "top-1 on ImageNet-1k and AP on COCO val2017 as published; empty: the publisher does not say."
    " In a config: regnet://NAME"
)


@click.group()
def weights() -> None:
    """The catalogue of published RegNet weights."""


@weights.command(name="list")
@click.option("--arch", help="Only this network, as regnety_4gf.")
@click.option("--min-top1", type=float, metavar="PERCENT", help="Only with at least this ImageNet-1k accuracy.")
@click.option("--license", "licence", metavar="TEXT", help="Only where the licence is stated and contains TEXT.")
@click.option("--format", "fmt", metavar="FORMAT", help="Only in this format, as pycls or timm.")
@click.option("--task", type=click.Choice(TASKS), help="Only for this task.")
@click.option("--json", "as_json", is_flag=True, help="All that is known of each, for programs.")
def list_(
    arch: str | None, min_top1: float | None, licence: str | None, fmt: str | None, task: str | None, as_json: bool
) -> None:
    """List the published weights that fit all the given options."""
    rows = list(catalogue().values())
    if arch:
        name = get_arch(arch).name
        rows = [row for row in rows if row.arch == name]
    if fmt:
        from ..weights.formats import get_format

        rows = [row for row in rows if row.format == get_format(fmt).name]
    if min_top1 is not None:
        rows = [row for row in rows if row.top1 is not None and row.top1 >= min_top1]
    rows = [row for row in rows if (licence or "").lower() in row.licence.lower() and task in (None, row.task)]
    if as_json:
        click.echo(json.dumps([_facts(row) for row in rows], indent=2))
        return
    print_table(
        f"{len(rows)} published weights", _COLUMNS, [_cells(row) for row in sorted(rows, key=_size)], _CAPTION, 5
    )


def _size(row: Published) -> int:
    """Rank in the family, so that the rows of one network stand together."""
    names = list(archs())
    return names.index(row.arch) if row.arch in names else len(names)


def _cells(row: Published) -> list[str]:
    precision = ((row.top1, 2), (row.box_ap, 1), (row.mask_ap, 1))
    numbers = ["" if value is None else f"{value:.{digits}f}" for value, digits in precision]
    return [row.name, row.task, row.format, row.channel_order, row.licence.partition(" (")[0], *numbers]


def _facts(row: Published) -> dict[str, object]:
    return {key: value for key, value in dataclasses.asdict(row).items() if value not in (None, "", ())}


@weights.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(name: str, as_json: bool) -> None:
    """Show all that is known of the published weight NAME, and where its file would be."""
    from ..weights.download import place

    row = find(name)
    facts = _facts(row) | {"file": str(place(row))}
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        texts = value if key == "notes" else [", ".join(map(str, value)) if isinstance(value, tuple) else str(value)]
        for text in texts:
            click.echo(f"{key.replace('_', ' '):14} {text}")


@weights.command()
@click.argument("name")
@click.option(
    "--cache-dir", type=click.Path(path_type=Path), help="Instead of REGNET_BACKBONES_CACHE or the platform's."
)
@click.option("--out", type=click.Path(path_type=Path), help="Put a copy here too.")
def get(name: str, cache_dir: Path | None, out: Path | None) -> None:
    """Download the published weight NAME (or an http address) and print the file's path.

    What is known of it (channel order, pixel statistics, origin) is written beside it, as <file>.json.
    """
    from ..weights.download import copy
    from ..weights.download import get as download

    with _bar(name) as progress:
        path = download(name, cache_dir, progress)
    if out:
        copy(name, out, cache_dir)
    click.echo(out or path)


@contextmanager
def _bar(name: str) -> Iterator:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
