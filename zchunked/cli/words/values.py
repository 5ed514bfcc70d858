"""Parse words of the command line and of ZPULL_… variables; ValueError says what was expected."""

from __future__ import annotations

import re
from collections.abc import Callable

_TRUE, _FALSE = ("1", "true", "yes"), ("0", "false", "no")
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|s|m|h|d)?", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([kmgt]i?)?(b|bit|bits)?", re.ASCII)
_FACTORS = {"": 1} | {f"{unit}i": 1 << 10 * power for power, unit in enumerate("kmgt", 1)}
_FACTORS |= {unit: 1000**power for power, unit in enumerate("kmgt", 1)}


def boolean(text: str) -> bool:
    """A switch, in any case. `on` and `off` are errors: they are easily meant the other way."""
    lower = text.strip().lower()
    if lower not in (*_TRUE, *_FALSE):
        raise ValueError("true or false (1 or 0, yes or no)")
    return lower in _TRUE


def one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return parse


def between(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (
            text.isascii() and text.isdecimal() and len(text) < 10 and low <= int(text) <= high
        ):
            raise ValueError(f"a whole number between {low} and {high}")
        return int(text)

    return parse


def count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ValueError("a whole number")
    return int(text)


def epoch(text: str) -> int:
    """Seconds since 1970, as far as a tar header can say them."""
    if not (text.isascii() and text.isdecimal() and len(text) < 11 and int(text) < 8**11):
        raise ValueError("seconds since 1970")
    return int(text)


def duration(text: str) -> float:
    """Seconds: `90`, `90s`, `1.5m`, `10m`, `1h`, `1h30m`."""
    total, rest = 0.0, text.strip().lower()
    parts = re.split(r"(?<=[a-z])(?=\d)", rest)
    for part in parts:
        found = _DURATION.fullmatch(part)
        if found is None or (len(parts) > 1 and not found[2]):
            raise ValueError("a duration such as 90, 90s, 10m or 1h")
        total += float(found[1]) * _SECONDS[found[2] or "s"]
    if total >= 1e9:
        raise ValueError("a duration below 1e9 seconds")
    return total


def size(text: str) -> int:
    """Bytes: `300k`, `1.5MB`, `64KiB`, `4096`."""
    number, is_bits = _amount(text)
    if number is None or is_bits or number >= 2**63:
        raise ValueError("a number of bytes such as 4096, 64k or 1.5MB")
    return int(number)


def rate(text: str) -> float:
    """Bytes per second: `4Mbit` and `4Mbps` count bits, `500kB` and `500k` bytes, `/s` optional."""
    text = text.strip()
    if text.endswith("ps"):
        text = text.removesuffix("ps") + ("it" if text.endswith("bps") else "")
    number, is_bits = _amount(text.removesuffix("/s").removesuffix("/S"))
    if number is None or not 0 < number < 2**63:
        raise ValueError("a rate such as 500kB or 4Mbit, with or without /s")
    return number / 8 if is_bits else number


def _amount(text: str) -> tuple[float | None, bool]:
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None:
        return None, False
    return float(found[1]) * _FACTORS[found[2] or ""], (found[3] or "").startswith("bit")
