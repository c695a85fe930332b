"""``regnet-backbones convert``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

_ORDER = click.Choice(["RGB", "BGR"], case_sensitive=False)


@click.command()
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path))
@click.option("--to", "to", required=True, metavar="FORMAT", help="Format to write; an unknown one lists them all.")
@click.option("--from", "source_format", metavar="FORMAT", help="Format of SRC, where it is not to be recognized.")
@click.option("--arch", help="What SRC must be: a name as regnety_4gf, or parameters.")
@click.option("--channel-order", type=_ORDER, help="Reverse the stem's input channels if SRC has the other order.")
@click.option("--source-channel-order", type=_ORDER, help="The order of SRC, where the file does not say it.")
@click.option("--ema", is_flag=True, help="Take the averaged weights of a training checkpoint.")
@click.option("--prefix", default="", help="Which network, if SRC holds several.")
@click.option("--source", default="", metavar="URL", help="Address that SRC came from, for the metadata.")
@click.option("--unsafe", is_flag=True, help="Unpickle whatever SRC asks for, which can run any code.")
@click.option("--force", "overwrite", is_flag=True, help="Replace DST if it exists.")
@click.option("--whole-detector", is_flag=True, help="Neck and heads too; FORMAT: detectron2, mmdet, mmdet-regnet.")
@click.option("--setting", "settings", multiple=True, metavar="NAME=VALUE", help="Of a detector: relu_before_p7=true.")
def convert(src: Path, dst: Path, settings: tuple[str, ...], **options) -> None:
    """Convert a RegNet checkpoint SRC into another framework's format.

    The format and the architecture of SRC are recognized. DST's suffix chooses the container: .safetensors, .pkl
    (Detectron2), any other one for PyTorch's. Nothing is written unless every tensor is accounted for.
    """
    from ..weights.conversion import convert as run  # torch is imported only when a conversion runs
    from ..weights.detectors.settings import parsed

    report = run(src, dst, settings=parsed(settings), **options)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in report.rows():
        table.add_row(name, text)
    Console(highlight=False, markup=False).print(table)
