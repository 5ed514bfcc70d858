"""Progress: what happened, drawn four ways."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.cli.terminal.progress import Progress, Style, human
from zchunked.events import Arrived, Converted, Converting, Event, GaveUp, Noted, Planned, Retried

EVENTS: list[Event] = [
    Planned(1_000_000, 400_000, 600_000),
    Arrived(200_000),
    Retried("connection reset", 1.2e6, 1.2e6 - 1, 0.25, 1),
    Noted("layer abc: comes whole"),
    Arrived(400_000),
    Planned(1_000_000, 990_000, 10_000),
    Arrived(50_000),
    GaveUp("connection reset", 0.5, -0.5, "patience is spent", 7),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(
    style: Style, *, explain: bool = False, out: io.StringIO | None = None, seconds: float = 0
) -> str:
    """What is written when each event comes `seconds` after the other."""
    out, now = out or io.StringIO(), 0.0
    progress = Progress(style, out, explain=explain, clock=lambda: now, now=lambda: 1e9 + now)
    for event in EVENTS:
        now += seconds
        progress(event)
    progress.close()
    progress.close()
    return out.getvalue()


def test_json_is_one_object_per_event_with_all_of_it() -> None:
    lines = [json.loads(line) for line in shown("json", seconds=1).splitlines()]
    assert [line["event"] for line in lines] == [type(event).__name__.lower() for event in EVENTS]
    assert [line["time"] for line in lines] == [
        1e9 + number for number in range(1, len(EVENTS) + 1)
    ]
    assert lines[0] == {
        "event": "planned",
        "time": 1e9 + 1,
        "total_bytes": 1_000_000,
        "here_bytes": 400_000,
        "need_bytes": 600_000,
    }
    assert lines[2]["cause"] == "connection reset"
    assert lines[2]["karma_before"] - lines[2]["karma_after"] == 1


def test_json_tells_of_arrivals_ten_times_a_second_and_loses_none() -> None:
    out, now = io.StringIO(), 0.0
    progress = Progress("json", out, clock=lambda: now)
    for _ in range(5000):
        now += 0.001
        progress(Arrived(7))
    progress.close()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert 40 <= len(lines) <= 52
    assert sum(line["bytes"] for line in lines) == 7 * 5000


def test_plain_lines_say_what_is_here_and_what_is_coming() -> None:
    text = shown("plain")
    assert "zpull: 400 kB of 1.0 MB are here, 600 kB more to come\n" in text
    assert "zpull: layer abc: comes whole\n" in text
    assert "/s" not in text, "no time has passed"
    assert "\r" not in text


def test_plain_lines_about_bytes_come_now_and_then() -> None:
    assert shown("plain", seconds=4).count("/s)") == 1
    text = shown("plain", seconds=100)
    assert text.count("/s)") == 3
    assert "zpull: 200 kB of 600 kB (1.0 kB/s)\n" in text


def test_a_file_gets_plain_lines_and_a_terminal_a_bar() -> None:
    assert shown("auto") == shown("plain")
    text = shown("auto", out=Terminal())
    assert "\r" in text
    assert "1.05M/1.05M" in text, "it ends full, although more came than was planned"
    assert "layer abc: comes whole\n" in text
    assert "are here" not in text


def test_the_bar_begins_with_what_is_here() -> None:
    out = Terminal()
    progress = Progress("bar", out)
    progress(Planned(1_000_000, 400_000, 600_000))
    assert "400k/1.00M" in out.getvalue()
    progress.close()


def test_with_nothing_to_fetch_there_is_no_bar() -> None:
    out = Terminal()
    progress = Progress("bar", out)
    progress(Planned(1_000_000, 1_000_000, 0))
    progress.close()
    assert out.getvalue() == ""


def test_none_is_silent() -> None:
    assert shown("none") == ""


@pytest.mark.parametrize("style", ["plain", "none", "bar"])
def test_decisions_of_the_chameleon_are_told_to_those_who_ask(style: Style) -> None:
    text = shown(style, explain=True)
    assert (
        "connection reset; try 1, karma 1.2e+06 -> 1.2e+06, again in 0.25 s, 400 kB to go\n" in text
    )
    assert (
        "connection reset; try 7, karma 0.5 -> -0.5, giving up: patience is spent, 0 B to go\n"
        in text
    )
    assert "karma" not in shown(style)


@pytest.mark.parametrize(("size", "want"), [
    (0, "0 B"), (1, "1 B"), (999, "999 B"), (1000, "1.0 kB"), (1234, "1.2 kB"), (99_940, "99.9 kB"),
    (99_960, "100 kB"), (123_456, "123 kB"),
    (999_499, "999 kB"), (999_999, "1.0 MB"), (1_500_000, "1.5 MB"), (999_999_999, "1.0 GB"),
     (2.5e9, "2.5 GB"),
    (1e12, "1.00 TB"),
])  # fmt: skip
def test_bytes_for_people(size: float, want: str) -> None:
    assert human(size) == want


@given(st.integers(0, 10**14))
def test_bytes_for_people_are_three_digits_and_true(size: int) -> None:
    number, unit = human(size).split(" ")
    assert float(number) < 1000
    value = float(number) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert value == pytest.approx(size, rel=0.05)


def test_the_bar_comes_back_for_images_that_are_still_under_way() -> None:
    out = Terminal()
    progress = Progress("bar", out)
    progress(Planned(1_000_000, 0, 1_000_000))
    progress(Planned(3_000_000, 1_000_000, 2_000_000))
    progress(Arrived(1_000_000))
    progress.close()
    before = len(out.getvalue())
    progress(Arrived(2_000_000))
    progress.close()
    assert "4.00M/4.00M" in out.getvalue()[before:]
    progress(Arrived(10))
    assert out.getvalue().endswith("\n"), "what was not planned brings no bar"


@pytest.mark.parametrize("style", ["plain", "bar"])
def test_a_conversion_is_counted_between_a_pull_and_a_push(style: Style) -> None:
    out, now = Terminal(), 0.0
    progress = Progress(style, out, clock=lambda: now)
    for event in (Planned(500, 0, 500), Arrived(500), Converting(2_000_000), Converted(1_500_000)):
        now += 20
        progress(event)
    if style == "plain":
        assert out.getvalue().splitlines()[-2:] == [
            "zpull: layers of 2.0 MB to convert",
            "zpull: 1.5 MB of 2.0 MB (75.0 kB/s)",
        ]
    progress(Converted(500_000))
    now += 20
    progress(Planned(1_000_000, 0, 1_000_000))
    progress(Arrived(250_000))
    progress.close()
    for summary_of in (
        ("1.0 MB more to come",) if style == "plain" else ("2.00M/2.00M", "250k/1.00M")
    ):
        assert summary_of in out.getvalue()
