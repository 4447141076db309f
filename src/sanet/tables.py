"""Tables of text, for terminals and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

MISSING = "—"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, the first to the left and all others to the right, with a rule under the header."""
    widths = _widths(header, rows)
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join(["  ".join(_aligned(header, widths)), rule, *("  ".join(_aligned(row, widths)) for row in rows)])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table, aligned as it stands: the first column to the left and all others to the right."""
    widths = _widths(header, rows)
    rule = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (_aligned(row, widths) for row in (header, rule, *rows)))


def percent(value: float) -> str:
    """A share of one in per cent with one digit, or a dash where it is not finite."""
    return f"{100 * value:.1f}" if isfinite(value) else MISSING


def duration(seconds: float) -> str:
    """A time in words, rounded: 45 s, 12 min or 3 h 20 min."""
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{max(0, seconds):.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _widths(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(header, *rows, strict=True)]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *others = zip(row, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
