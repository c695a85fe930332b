"""The console command ``regnet-backbones``: parse, call, print. One file per topic, imported when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from .. import __version__
from ..errors import UserError

# Command to the file it lives in. Importing them all would import torch to print a table of names.
_COMMANDS = {"archs": "archs", "convert": "weights", "describe": "archs", "weights": "catalogue"}


class _Told(click.ClickException):
    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.message}", err=True)


class _LazyGroup(click.Group):
    """Finds its commands by :data:`_COMMANDS`, and tells a UserError in one line with exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        return getattr(import_module(f".{_COMMANDS[name]}", __name__), name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise _Told(str(error)) from error


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="regnet-backbones")
def main() -> None:
    """RegNet backbones for Detectron2, MMDetection and MMSegmentation."""
