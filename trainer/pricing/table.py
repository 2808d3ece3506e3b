"""The price of a run on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from trainer.pricing.price import Line, Price


def show(price: Price, console: Console) -> None:
    """Prints a round's stages and the whole run's hours and disk."""
    table = Table("stage", "what it goes through", "time", "disk", title="a round")
    for column in table.columns[2:]:
        column.justify = "right"
    for line in price.lines:
        table.add_row(line.stage, _amounts(line), _time(line.seconds), _size(line.bytes))
    console.print(table)
    if price.unmeasured:
        console.print(f"No times and disk; nothing was measured: {price.unmeasured}", highlight=False, soft_wrap=True)
    else:
        hours, size = _time(3600 * (price.hours or 0)), _size(price.bytes)
        console.print(f"{price.rounds} rounds: about {hours} and {size} of disk, the swaps aside.")


def _amounts(line: Line) -> str:
    return ", ".join(f"{amount:,} {name}" for name, amount in line.amounts.items())


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return (
        f"{seconds:.1f} s"
        if seconds < 120
        else f"{seconds / 60:.1f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _size(size: int | None) -> str:
    return "?" if size is None else decimal(size) if size else ""
