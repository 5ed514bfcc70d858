"""Progress: events → a tqdm bar, plain lines, or JSON lines on stderr. The only tqdm."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import IO, Literal

from zchunked.events import (
    Arrived,
    Converted,
    Converting,
    Event,
    GaveUp,
    Noted,
    Planned,
    Pulled,
    Requested,
    Retried,
    Warned,
)

Style = Literal["auto", "bar", "plain", "json", "none"]
_PLAIN_SECONDS = 10.0
_JSON_SECONDS = 0.1


class Progress:
    """Shows one pull. `close` leaves the terminal clean; used on one thread."""

    def __init__(
        self,
        style: Style,
        out: IO[str],
        *,
        explain: bool = False,
        shows_requests: bool = False,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`clock` measures, in seconds; `now` dates, in seconds since 1970."""
        if style == "auto":
            style = "bar" if out.isatty() else "plain"
        self._style, self._out, self._explain, self._clock = style, out, explain, clock
        self._shows_requests, self._now = shows_requests, now
        self._unreported = 0
        self._reported_at = float("-inf")
        self._bar: _Bar | None = None
        self._need = self._done = self._total = 0
        self._is_converting = False
        self._reported = self._began = clock()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Pulled):
            self.close()  # what follows has no bar
        if isinstance(event, Requested) and not self._shows_requests:
            return
        if self._style == "json":
            self._as_json(event)
        else:
            self._as_text(event)

    def _as_text(self, event: Event) -> None:
        if isinstance(event, Requested):
            what = f"{event.method} {event.url}" + (
                f" {event.ranges[:200]}" if event.ranges else ""
            )
            self._line(f"zpull: {what}: {event.status or 'no answer'} after {event.seconds:.3f} s")
        elif isinstance(event, Planned):
            self._plan(event)
        elif isinstance(event, Converting):
            self._convert(event.total_bytes)
        elif isinstance(event, Arrived | Converted):
            self._advance(event.bytes)
        elif isinstance(event, Noted):
            if self._style != "none":
                self._line(f"zpull: {event.text}")
        elif isinstance(event, Warned):  # whatever the style
            self._line(f"zpull: warning: {event.text}")
        elif self._explain and isinstance(event, Retried | GaveUp):
            left = f", {human(max(self._need - self._done, 0))} to go" if self._need else ""
            karma = f"karma {_points(event.karma_before)} -> {_points(event.karma_after)}"
            what = (
                f"giving up: {event.reason}"
                if isinstance(event, GaveUp)
                else f"again in {event.wait:.2f} s"
            )
            self._line(f"zpull: {event.cause}; try {event.attempt}, {karma}, {what}{left}")

    def _as_json(self, event: Event) -> None:
        """One object a line. Arrivals are reported ten times a second at most, several in one."""
        if isinstance(event, Arrived):
            self._unreported += event.bytes
            if self._clock() - self._reported_at < _JSON_SECONDS:
                return
        self._report_arrived()
        if not isinstance(event, Arrived):
            self._json_line(event)

    def _report_arrived(self) -> None:
        if self._unreported:
            self._json_line(Arrived(self._unreported))
            self._unreported, self._reported_at = 0, self._clock()

    def _json_line(self, event: Event) -> None:
        what = type(event).__name__.lower()
        self._line(json.dumps({"event": what, "time": round(self._now(), 3), **_fields(event)}))

    def close(self) -> None:
        self._report_arrived()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _begin_anew(self) -> None:
        """What was counted so far has nothing to do with what follows."""
        self.close()
        self._need = self._done = self._total = 0
        self._reported = self._began = self._clock()

    def _convert(self, total: int) -> None:
        self._begin_anew()
        self._is_converting, self._need, self._total = True, total, total
        if self._style == "plain":
            self._line(f"zpull: layers of {human(total)} to convert")
        elif self._style == "bar" and total:
            self._bar = _Bar(self._out, total, 0)

    def _plan(self, event: Planned) -> None:
        if self._is_converting:
            self._begin_anew()
            self._is_converting = False
        self._need += event.need_bytes
        self._total += event.total_bytes
        if self._style == "plain":
            self._line(
                f"zpull: {human(event.here_bytes)} of {human(event.total_bytes)} are here, "
                f"{human(event.need_bytes)} more to come"
            )
        elif self._style == "bar" and event.need_bytes:
            if self._bar is None:
                self._bar = _Bar(
                    self._out, event.total_bytes, max(event.total_bytes - event.need_bytes, 0)
                )
            else:
                self._bar.grow(event.need_bytes)

    def _advance(self, size: int) -> None:
        if self._style == "bar" and self._bar is None and self._done < self._need:
            # One of several images is through, and its result printed: the others go on.
            self._bar = _Bar(self._out, self._total, self._total - self._need + self._done)
        self._done += size
        if self._bar is not None:
            self._bar.advance(size)
        now = self._clock()
        if self._style == "plain" and self._need and now - self._reported >= _PLAIN_SECONDS:
            self._reported = now
            rate = self._done / max(now - self._began, 0.001)
            self._line(f"zpull: {human(self._done)} of {human(self._need)} ({human(rate)}/s)")

    def _line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.say(text)
        else:
            print(text, file=self._out, flush=True)


class _Bar:
    """One tqdm bar over the image's compressed bytes; stored bytes count as done, not as speed."""

    def __init__(self, out: IO[str], total: int, here: int) -> None:
        from tqdm import tqdm  # noqa: PLC0415 - a tenth of the start-up time, and only terminals need it

        tqdm.monitor_interval = 0  # its thread would only redraw what stands still
        self._done, self._total = here, total
        self._tqdm = tqdm(
            total=total,
            initial=here,
            file=out,
            unit="B",
            unit_scale=True,
            dynamic_ncols=True,
            miniters=1,
            mininterval=0.2,
        )

    def advance(self, size: int) -> None:
        self._done += size
        self._stretch()
        self._tqdm.update(size)

    def grow(self, size: int) -> None:
        self._total += size
        self._stretch()
        self._tqdm.refresh()

    def _stretch(self) -> None:
        """Gaps and second tries are more than the image."""
        self._total = max(self._total, self._done)
        self._tqdm.total = self._total

    def say(self, text: str) -> None:
        self._tqdm.write(text, file=self._tqdm.fp)

    def close(self) -> None:
        self._tqdm.close()


def _fields(event: Event) -> dict[str, object]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


def _points(karma: float) -> str:
    return f"{karma:.1f}" if abs(karma) < 1000 else f"{karma:.3g}"


def human(size: float) -> str:
    """Bytes for people: decimal units, three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.95 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} TB"
