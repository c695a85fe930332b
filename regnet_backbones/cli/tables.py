"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "", left: int = 1
) -> None:  # fmt: skip
    """Print ``rows``; the first ``left`` columns are texts, the others numbers."""
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(str, row))
    # In a narrow terminal the lines wrap: rich would cut the numbers short instead.
    natural = Console(width=1000).measure(table).maximum
    Console(width=max(natural, Console().width)).print(table)
