"""One picture, with the standard library: durations of updates, in units of the physical limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_COLOURS = ("#1f6f8b", "#e08e45", "#b5495b", "#8a8d91", "#5b8c5a")
_WIDTH, _LABEL, _BAR, _GAP, _TOP = 860, 200, 14, 16, 64
_MOST = 6.0
"""Longer bars are cut there, and say so in figures."""


@dataclass(frozen=True, slots=True)
class Group:
    """Bars that belong together: one per series, None where nothing was measured."""

    title: str
    values: Sequence[float | None]


def svg(
    title: str, series: Sequence[str], groups: Sequence[Group], marks: Sequence[tuple[float, str]]
) -> str:
    """Horizontal bars; `marks` are upright lines with a word each."""
    scale = (_WIDTH - _LABEL - 70) / _MOST
    parts: list[str] = []
    at = _TOP
    for group in groups:
        middle = at + len(series) * _BAR / 2 + 4
        parts.append(
            f'<text x="{_LABEL - 10}" y="{middle:.0f}" '
            f'text-anchor="end">{escape(group.title)}</text>'
        )
        for colour, value in zip(_COLOURS, group.values, strict=False):
            if value is not None:
                width = min(value, _MOST) * scale
                parts.append(
                    f'<rect x="{_LABEL}" y="{at + 1}" width="{width:.1f}" height="{_BAR - 2}" '
                    f'fill="{colour}"/><text x="{_LABEL + width + 5:.1f}" y="{at + _BAR - 3}" '
                    f'font-size="11">{value:.2f}</text>'
                )
            at += _BAR
        at += _GAP
    for value, word in marks:
        x = _LABEL + value * scale
        parts.append(
            f'<line x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{at - _GAP + 4}" stroke="#444" '
            f'stroke-dasharray="3 3"/><text x="{x:.1f}" y="{at + 4}" text-anchor="middle" '
            f'font-size="11">{escape(word)}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {at + 20}" '
        f'font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="10" y="20" font-size="15" font-weight="bold">{escape(title)}</text>'
        f"{_legend(series)}{''.join(parts)}</svg>\n"
    )


def _legend(series: Sequence[str]) -> str:
    parts: list[str] = []
    x = 10.0
    for colour, name in zip(_COLOURS, series, strict=False):
        parts.append(f'<rect x="{x:.0f}" y="34" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 17:.0f}" y="44">{escape(name)}</text>')
        x += 36 + 7 * len(name)
    return "".join(parts)
