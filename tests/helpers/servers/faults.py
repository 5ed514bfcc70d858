"""Faults on the way, as functions from one answer to a worse one, and rules that say when.

Registry(images, faults=[on("blob", reset(after=1000), nth=2), on("token", fail(503), times=1)])
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Literal

from tests.helpers.servers.accounts import Kind, Request
from tests.helpers.servers.answers import Answer, Piece, content_range, plain, whole

Fault = Callable[[Answer, random.Random], Answer]
"""The dice are the same in every run with the same seed."""
Count = int | tuple[int, int]
"""A number, or the bounds, both included, of one to be thrown."""


def _thrown(count: Count, dice: random.Random) -> int:
    return count if isinstance(count, int) else dice.randint(*count)


# ── the connection ──


def refuse(*, how: Literal["fin", "rst"] = "fin") -> Fault:
    """Close before a word is said."""
    return lambda answer, dice: replace(answer, end=how, end_after=-1)


def reset(*, after: Count) -> Fault:
    """RST after so many body bytes. -1 is before the head."""
    return lambda answer, dice: replace(answer, end="rst", end_after=_thrown(after, dice))


def cut(*, after: Count) -> Fault:
    """FIN after so many body bytes, with the promised length unfulfilled."""
    return lambda answer, dice: replace(answer, end="fin", end_after=_thrown(after, dice))


def cut_chunked(*, after: Count) -> Fault:
    """As `cut`, in a chunked body, which thus lacks its last chunk."""
    return lambda answer, dice: replace(
        answer, chunked=True, end="fin", end_after=_thrown(after, dice)
    )


def chunked() -> Fault:
    """No fault at all: a whole body, sent in chunked encoding without a Content-Length."""
    return lambda answer, dice: replace(answer, chunked=True)


def close() -> Fault:
    """No fault: a whole body, then the connection is closed unannounced."""
    return lambda answer, dice: replace(answer, end="fin", end_after=None)


def stall(seconds: float, *, after: Count = 0) -> Fault:
    """Silence after so many body bytes (-1: before the head), then on; ends with the server."""
    return lambda answer, dice: replace(
        answer, pauses=(*answer.pauses, (_thrown(after, dice), seconds))
    )


def trickle(size: int, seconds: float) -> Fault:
    """So many bytes at a time, so many seconds between."""
    return lambda answer, dice: replace(answer, trickle=(size, seconds))


# ── the answer ──


def fail(
    status: int,
    *,
    retry_after: str | float | None = None,
    date: bool = False,
    body: bytes | None = None,
) -> Fault:
    """Another status instead of the answer. `date`: Retry-After as a date, in whole seconds."""

    def fault(answer: Answer, dice: random.Random) -> Answer:
        failed = plain(status, f"{status} by order of the test".encode() if body is None else body)
        if retry_after is None:
            return failed
        when = (
            formatdate(time.time() + float(retry_after), usegmt=True) if date else str(retry_after)
        )
        return failed.with_headers(Retry_After=when)

    return fault


def fail_as_ghcr() -> Fault:
    """A rate limit that tells when to come back in its body only."""
    return fail(429, body="retry-after: 880µs, allowed: 44000/minute".encode())


def headers(**changed: str | None) -> Fault:
    """Other headers, `_` for `-`; None takes one away. `headers(Content_Type="text/html")`."""
    return lambda answer, dice: answer.with_headers(**changed)


def shift_content_range(by: int = 1) -> Fault:
    """Content-Range tells of other bytes than come."""

    def fault(answer: Answer, dice: random.Random) -> Answer:
        if "Content-Range" not in answer.headers or not answer.body or answer.body[0].at is None:
            return answer
        start, size = answer.body[0].at + by, sum(len(piece.data) for piece in answer.body)
        return answer.with_headers(
            Content_Range=content_range((start, start + size), len(answer.blob))
        )

    return fault


def wrong_total(by: int = 1) -> Fault:
    """Content-Range tells of a blob of another size."""

    def fault(answer: Answer, dice: random.Random) -> Answer:
        known, slash, _ = answer.headers.get("Content-Range", "").partition("/")
        return (
            answer.with_headers(Content_Range=f"{known}/{len(answer.blob) + by}")
            if slash
            else answer
        )

    return fault


def no_content_range() -> Fault:
    return headers(Content_Range=None)


def ignore_range() -> Fault:
    """200 and the whole blob."""
    return lambda answer, dice: whole(answer.blob) if answer.status == 206 else answer


def empty() -> Fault:
    """The same head, with no body and a length of 0."""
    return lambda answer, dice: answer.with_body()


def missing(size: int) -> Fault:
    """The last bytes are left out, and the length agrees."""

    def fault(answer: Answer, dice: random.Random) -> Answer:
        pieces, left = list(answer.body), size
        while left and pieces:
            last = pieces.pop()
            if len(last.data) > left:
                pieces.append(Piece(last.data[: len(last.data) - left], last.at))
            left = max(0, left - len(last.data))
        return answer.with_body(*pieces)

    return fault


def extra(size: int) -> Fault:
    """More bytes than were asked for, and the length agrees."""
    return lambda answer, dice: answer.with_body(*answer.body, Piece(b"\xee" * size))


def flip(at: int) -> Fault:
    """One bit of the blob's byte at this offset, if it is among the bytes sent."""

    def flipped(piece: Piece) -> Piece:
        if piece.at is None or not piece.at <= at < piece.at + len(piece.data):
            return piece
        data = bytearray(piece.data)
        data[at - piece.at] ^= 1
        return Piece(bytes(data), piece.at)

    return lambda answer, dice: replace(answer, body=tuple(map(flipped, answer.body)))


def replaced(body: bytes) -> Fault:
    """A body of one's own under the same status and type."""
    return lambda answer, dice: answer.with_body(Piece(body)).with_headers(Content_Range=None)


def garbage_type() -> Fault:
    return headers(Content_Type="\x01;;=garbage")


def garbage_boundary() -> Fault:
    """The type announces a boundary that never comes."""
    return headers(Content_Type="multipart/byteranges; boundary=never")


def no_boundary() -> Fault:
    return headers(Content_Type="multipart/byteranges")


def claim_gzip() -> Fault:
    """Content-Encoding: gzip on bytes that are not."""
    return headers(Content_Encoding="gzip")


# ── when ──


@dataclass(frozen=True)
class Rule:
    """When to apply some faults. All conditions must hold."""

    kinds: frozenset[Kind]
    """Empty: all."""
    faults: tuple[Fault, ...]
    nth: frozenset[int]
    """Ordinals, from 1, among the requests of these kinds; empty: all."""
    times: int | None
    probability: float
    after_bytes: int
    """Body bytes sent by the server, of all requests."""
    since: float
    """Seconds of the server's life."""
    until: float
    when: Callable[[Request], bool] | None


def on(
    kind: Kind | Iterable[Kind] | Literal["any"],
    *faults: Fault,
    nth: int | Iterable[int] = (),
    times: int | None = None,
    probability: float = 1.0,
    after_bytes: int = 0,
    since: float = 0.0,
    until: float = float("inf"),
    when: Callable[[Request], bool] | None = None,
) -> Rule:
    """A rule for requests of these kinds: the nth, at most so many, by chance, from a point on."""
    kinds: Iterable[Kind] = () if kind == "any" else (kind,) if isinstance(kind, str) else kind  # type: ignore[assignment]
    ordinals = (nth,) if isinstance(nth, int) else nth
    return Rule(
        frozenset(kinds),
        faults,
        frozenset(ordinals),
        times,
        probability,
        after_bytes,
        since,
        until,
        when,
    )


class Script:
    """Rules with counters that all connections share; chance depends on seed, rule and ordinal."""

    def __init__(self, rules: Sequence[Rule], seed: int) -> None:
        self._lock = threading.Lock()
        self._rules = rules
        self._seed = seed
        self._met = [0] * len(rules)
        self._used = [0] * len(rules)

    def apply(self, answer: Answer, request: Request, *, sent: int, seconds: float) -> Answer:
        for number, rule in enumerate(self._rules):
            dice = self._dice(number, rule, request, sent, seconds)
            if dice:
                for fault in rule.faults:
                    answer = fault(answer, dice)
        return answer

    def _dice(
        self, number: int, rule: Rule, request: Request, sent: int, seconds: float
    ) -> random.Random | None:
        """Dice if the rule applies."""
        if (rule.kinds and request.kind not in rule.kinds) or (
            rule.when and not rule.when(request)
        ):
            return None
        with self._lock:
            self._met[number] += 1
            dice = random.Random(f"{self._seed}/{number}/{self._met[number]}")
            if (
                (rule.nth and self._met[number] not in rule.nth)
                or (rule.times is not None and self._used[number] >= rule.times)
                or not rule.since <= seconds < rule.until
                or sent < rule.after_bytes
                or dice.random() >= rule.probability
            ):
                return None
            self._used[number] += 1
            return dice


@dataclass
class Outage:
    """For so many seconds every connection is reset, or, if `silent`, receives nothing.

    It begins at this second of the server's life, or once so many body bytes have been sent.
    """

    seconds: float
    at: float | None = None
    after_bytes: int | None = None
    silent: bool = False
    _began: float | None = field(default=None, init=False)

    def left(self, *, now: float, sent: int) -> float:
        """Seconds until it is over; 0 when it is, or has not begun."""
        if self._began is None:
            if self.at is not None and now >= self.at:
                self._began = self.at
            elif self.after_bytes is not None and sent >= self.after_bytes:
                self._began = now
            else:
                return 0.0
        return max(0.0, self._began + self.seconds - now)
