"""Draws docs/plots/tolerance.svg: how long an outage in mid-pull is borne, by rate and patience.

    .venv/bin/python docs/plots/tolerance.py [--check]

Measured on the class that decides, `zchunked.download.retries.karma.Karma`, on a clock of its own:
steady progress for 25 minutes, then silence. `--check` writes nothing and fails where the picture
is not what the code does.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from zchunked.download.retries.karma import Karma

_PATIENCE = {14: "#9a3412", 60: "#1d4ed8", 300: "#166534"}
_SPEEDS = [10 ** (3 + step / 10) for step in range(61)]  # bytes per second, 1 kB/s to 1 GB/s
_STEADY_SECONDS = 1500.0  # long enough for the endowment to fade
_LEFT, _TOP, _WIDTH, _HEIGHT = 70, 40, 560, 300
_LOWEST, _HIGHEST = 1.0, 1000.0  # seconds, on a logarithmic axis
_OUT = Path(__file__).with_suffix(".svg")


def tolerance(patience: float, speed: float) -> float:
    """Seconds of total outage that are borne after steady progress at so many bytes per second."""
    now = 0.0
    karma = Karma(patience, lambda: now)
    steps = 400
    for _ in range(steps):
        now += _STEADY_SECONDS / steps
        # What a steady stream is worth at the end of a step of this length: the integral of its
        # decay.
        tau, length = patience / 14, _STEADY_SECONDS / steps
        karma.gain(round(speed * tau * (1 - math.exp(-length / tau))))
    return karma.tolerance()


def _x(speed: float) -> float:
    return _LEFT + _WIDTH * (math.log10(speed) - 3) / 6


def _y(seconds: float) -> float:
    share = math.log10(seconds / _LOWEST) / math.log10(_HIGHEST / _LOWEST)
    return _TOP + _HEIGHT * (1 - share)


def _text(
    x: float, y: float, text: str, *, anchor: str = "middle", color: str = "#333", more: str = ""
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}"{more}>{text}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, color: str = "#ddd") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'


def _axes() -> list[str]:
    parts = []
    for power, name in enumerate(
        ("1 kB/s", "10 kB/s", "100 kB/s", "1 MB/s", "10 MB/s", "100 MB/s", "1 GB/s")
    ):
        x = _x(10 ** (3 + power))
        parts += [_line(x, _TOP, x, _TOP + _HEIGHT), _text(x, _TOP + _HEIGHT + 18, name)]
    for seconds in (1, 3, 10, 30, 100, 300, 1000):
        y = _y(seconds)
        parts += [
            _line(_LEFT, y, _LEFT + _WIDTH, y),
            _text(_LEFT - 8, y + 4, f"{seconds} s", anchor="end"),
        ]
    parts.append(
        _text(_LEFT + _WIDTH / 2, _TOP - 18, "Outage borne in mid-pull, by the speed of the link")
    )
    return parts


def picture() -> str:
    parts = _axes()
    for patience, color in _PATIENCE.items():
        points = [(_x(speed), _y(max(tolerance(patience, speed), _LOWEST))) for speed in _SPEEDS]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2.5"/>')
        x, y = points[-1]
        parts.append(_text(x + 6, y + 4, f"--patience {patience}", anchor="start", color=color))
    size = f'width="{_LEFT + _WIDTH + 110}" height="{_TOP + _HEIGHT + 40}"'
    font = 'font-family="sans-serif" font-size="12"'
    return "\n".join(
        [f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>', *parts, "</svg>", ""]
    )


def main() -> int:
    if "--check" in sys.argv:
        return int(_OUT.read_text(encoding="utf-8") != picture())
    _OUT.write_text(picture(), encoding="utf-8")
    for patience in _PATIENCE:
        row = ", ".join(
            f"{speed:g} B/s {tolerance(patience, speed):.0f} s"
            for speed in (1e3, 1e5, 1e6, 1e7, 1e8)
        )
        print(f"--patience {patience}: {row}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
