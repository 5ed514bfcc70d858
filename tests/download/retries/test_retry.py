"""The Chameleon at work, on a clock and a sleep of the test's own.

Hours of bad network in no time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.download.retries.retry import Chameleon, Stopped
from zchunked.download.retries.retrying_source import RetryingSource
from zchunked.errors import (
    AccessDeniedError,
    IntegrityError,
    MultiRangeRefusedError,
    NotFoundError,
    RangeIgnoredError,
    TransferError,
    TransientError,
)
from zchunked.events import Event, Noted, Retried
from zchunked.interfaces import Document, Pieces
from zchunked.oci.digest import Digest
from zchunked.oci.documents import OCI_MANIFEST, Descriptor
from zchunked.options import Patience
from zchunked.ranges import ByteRange, merge, total

BLOB = bytes(number * 7 % 251 for number in range(10_000))
DESCRIPTOR = Descriptor("", Digest("sha256:" + "1" * 64), len(BLOB))
WHOLE = [ByteRange(0, len(BLOB))]


class World:
    """A clock that only sleeping and the test move, and a Chameleon that lives by it."""

    def __init__(self, patience: float = 60, *, retries: int | None = None, jobs: int = 1) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.events: list[Event] = []
        self.stop = threading.Event()
        self.chameleon = Chameleon(
            Patience(patience, retries),
            jobs,
            self.events.append,
            self.stop,
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept.append(seconds)
        self.now += seconds

    @property
    def retried(self) -> list[Retried]:
        return [event for event in self.events if isinstance(event, Retried)]


Step = Callable[[], None]


class Bad:
    """A source with a script.

    For each request how many bytes come before the error, if there is one.
    """

    def __init__(
        self,
        *script: tuple[int, Exception | None],
        spans: int = 1,
        piece: int = 997,
        together: int = 1,
    ) -> None:
        """`together`: how many pieces make a haul."""
        self.script = iter(script)
        self.spans, self.piece, self.together = spans, piece, together
        self.asked: list[list[ByteRange]] = []
        self.manifests = 0

    def manifest(self, digest: Digest | None) -> Document:
        self.manifests += 1
        _, error = next(self.script, (0, None))
        if error:
            raise error
        return Document(b"{}", OCI_MANIFEST)

    def close(self) -> None: ...

    def spans_per_request(self, blob: Descriptor) -> int:
        return self.spans

    def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        self.asked.append(list(spans))
        left, error = next(self.script, (len(BLOB), None))
        haul: list[tuple[int, bytes]] = []
        for span in spans:
            for at in range(span.start, span.end, self.piece):
                end = min(at + self.piece, span.end, at + left)
                left -= end - at
                if end > at:
                    haul.append((at, BLOB[at:end]))
                if len(haul) == self.together:
                    yield haul
                    haul = []
                if not left and error:
                    break
        if haul:
            yield haul
        if error:
            raise error


class Kept:
    """What arrived, and how often each byte did."""

    def __init__(self) -> None:
        self.count = bytearray(len(BLOB))

    def __call__(self, haul: Pieces) -> int:
        new = 0
        for position, piece in haul:
            assert BLOB[position : position + len(piece)] == piece
            new += self.count[position : position + len(piece)].count(0)
            for at in range(position, position + len(piece)):
                self.count[at] += 1
        return new

    def holds(self, spans: list[ByteRange], times: int = 1) -> bool:
        wanted = bytearray(len(BLOB))
        for span in spans:
            wanted[span.start : span.end] = bytes([times]) * span.size
        return wanted == self.count


def fail(message: str = "reset", after: float | None = None) -> TransientError:
    return TransientError(message, retry_after=after)


def always(error: Exception) -> Callable[[], None]:
    def attempt() -> None:
        raise error

    return attempt


# ── how long, and how often ──


@given(st.floats(5, 600))
def test_an_outage_is_borne_for_about_the_patience(patience: float) -> None:
    world = World(patience)
    with pytest.raises(TransferError, match="gave up after"):
        world.chameleon.run(always(fail()))
    assert (
        0.8 * patience <= world.now <= patience + 0.2
    )  # each failure costs a little of it, the more the longer it lasts


@given(st.floats(1, 600))
def test_waits_begin_short_grow_to_five_seconds_and_never_rush_the_server(patience: float) -> None:
    world = World(patience)
    with pytest.raises(TransferError):
        world.chameleon.run(always(fail()))
    assert 0.05 <= world.slept[0] <= 0.1
    assert all(wait <= 5 for wait in world.slept)
    assert all(wait <= 0.1 * 2**number for number, wait in enumerate(world.slept))
    assert all(wait >= 0.05 for wait in world.slept)


def test_new_bytes_make_the_next_wait_short_again() -> None:
    world = World(600)
    for _ in range(20):
        world.chameleon.forgive(fail())
        world.now += 10
    assert world.chameleon.forgive(fail()).wait > 1
    world.chameleon.gain(1)
    world.now += 10
    assert world.chameleon.forgive(fail()).wait <= 0.1


def test_the_servers_own_wish_wins_over_our_backoff() -> None:
    world = World(60)
    tries = iter([fail(after=17.5), fail(after=3.0)])

    def attempt() -> str:
        if error := next(tries, None):
            raise error
        return "done"

    assert world.chameleon.run(attempt) == "done"
    assert world.now == pytest.approx(20.5)


def test_a_wish_beyond_our_patience_is_not_waited_for() -> None:
    world = World(60)
    with pytest.raises(TransferError, match="the server asks to wait 3600 s"):
        world.chameleon.run(always(fail(after=3600)))
    assert world.now == 0


def test_without_patience_the_first_failure_is_final() -> None:
    world = World(0)
    with pytest.raises(TransferError, match="gave up after one try: reset"):
        world.chameleon.run(always(fail()))
    assert world.slept == []
    assert world.retried == []


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_retries_may_be_capped(retries: int) -> None:
    world = World(600, retries=retries)
    calls = []

    def attempt() -> None:
        calls.append(1)
        raise fail()

    with pytest.raises(TransferError):
        world.chameleon.run(attempt)
    assert len(calls) == retries + 1
    assert world.chameleon.retries == len(world.retried) == retries


@pytest.mark.parametrize(
    "error",
    [NotFoundError("x"), AccessDeniedError("x"), TransferError("x"), RangeIgnoredError("x")],
)
def test_what_will_not_change_is_not_tried_again(error: Exception) -> None:
    world = World()
    with pytest.raises(type(error)) as caught:
        world.chameleon.run(always(error))
    assert caught.value is error
    assert world.slept == []


def test_a_foreign_error_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        World().chameleon.run(lambda: 1 // 0)


def test_every_decision_is_told_with_karma_before_and_after() -> None:
    world = World()
    tries = iter([fail("first"), fail("second")])

    def attempt() -> None:
        if error := next(tries, None):
            raise error

    world.chameleon.run(attempt)
    assert [(event.cause, event.attempt) for event in world.retried] == [
        ("first", 1),
        ("second", 2),
    ]
    assert all(event.karma_after == event.karma_before - 1 for event in world.retried)
    assert sum(event.wait for event in world.retried) == pytest.approx(world.now)


def test_the_last_error_is_the_cause_of_giving_up() -> None:
    with pytest.raises(TransferError) as caught:
        World(1).chameleon.run(always(fail("connection reset by peer")))
    assert not isinstance(caught.value, TransientError)
    assert isinstance(caught.value.__cause__, TransientError)
    assert "connection reset by peer" in str(caught.value)


# ── one karma for all workers ──


def test_what_one_worker_earns_another_may_spend() -> None:
    rich, poor = World(), World()
    for world, new_bytes in ((rich, 10**9), (poor, 0)):
        world.now = 50
        world.chameleon.gain(new_bytes)
        world.now = 100
        if new_bytes:
            assert not world.chameleon.forgive(fail()).is_final
        else:
            assert world.chameleon.forgive(fail()).is_final


def test_workers_that_fail_together_count_as_one_wave_of_backoff() -> None:
    world = World(jobs=8)
    first = [world.chameleon.forgive(fail()) for _ in range(8)]
    assert all(decision.wait <= 0.4 for decision in first)


# ── how many connections: fewer while nothing comes, more with what does ──


def test_breaks_that_brought_bytes_close_no_connection_and_cost_no_wait() -> None:
    world = World(jobs=8)
    for _ in range(100):
        for _ in range(8):
            decision = world.chameleon.forgive(fail(), 64 << 10)
            assert decision.wait == 0
    assert world.chameleon.allowed == 8


def test_the_less_a_try_brought_the_longer_the_wait_for_the_next() -> None:
    world = World(jobs=8)
    waits = [world.chameleon.forgive(fail(), brought).wait for brought in (1, 8 << 10, 16 << 10)]
    assert 0.049 <= waits[0] <= 0.1
    assert 0.02 <= waits[1] <= 0.05
    assert waits[2] == 0


def test_failures_that_bring_nothing_close_connections() -> None:
    world = World(10**6, jobs=8)
    for _ in range(10):
        world.now += 10
        assert not world.chameleon.forgive(fail()).is_final
    assert world.chameleon.allowed == 1


def test_bytes_open_connections_again_before_any_attempt_has_ended() -> None:
    world = World(10**6, jobs=8)
    for _ in range(10):
        world.now += 10
        world.chameleon.forgive(fail())
    world.now += 10
    for _ in range(3):
        world.chameleon.gain(64 << 10)
    assert world.chameleon.allowed == 4


def test_a_fetch_that_breaks_every_16_kib_goes_on_at_once() -> None:
    blob, step = Descriptor("", Digest("sha256:" + "2" * 64), 160 << 10), 16 << 10

    class Breaks(Bad):
        def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
            self.asked.append(list(spans))
            yield [(spans[0].start, bytes(step))]
            raise fail()

    world, source = World(), Breaks()
    RetryingSource(source, world.chameleon).fetch(
        blob, [ByteRange(0, blob.size)], lambda haul: step
    )
    assert len(source.asked) == 10
    assert world.now == 0


def test_a_stopped_pull_tries_nothing_more() -> None:
    world = World()
    calls = []

    def attempt() -> None:
        calls.append(1)
        world.stop.set()
        raise fail()

    with pytest.raises(Stopped):
        world.chameleon.run(attempt)
    assert calls == [1]
    with pytest.raises(Stopped):
        world.chameleon.run(attempt)
    assert calls == [1]


def test_a_wait_ends_when_the_pull_is_stopped() -> None:
    stop = threading.Event()
    events: list[Event] = []

    def show(event: Event) -> None:
        events.append(event)
        stop.set()  # a person presses Ctrl-C while the Chameleon is about to sleep for an hour

    chameleon = Chameleon(Patience(10**6), 1, show, stop)
    with pytest.raises(Stopped):
        chameleon.run(always(fail(after=3600)))
    assert len(events) == 1


# ── a source that forgives ──


def fetch(source: Bad, spans: list[ByteRange], world: World | None = None) -> tuple[Kept, World]:
    kept, world = Kept(), world or World()
    RetryingSource(source, world.chameleon).fetch(DESCRIPTOR, spans, kept)
    return kept, world


@st.composite
def wanted(draw: st.DrawFn) -> list[ByteRange]:
    spans, at = [], 0
    for gap, size in draw(
        st.lists(st.tuples(st.integers(1, 900), st.integers(1, 1500)), min_size=1, max_size=4)
    ):
        spans.append(ByteRange(at + gap, at + gap + size))
        at += gap + size
    return spans


@given(
    wanted(),
    st.lists(st.integers(1, 2500), max_size=8),
    st.integers(1, 4),
    st.integers(1, 1200),
    st.integers(1, 5),
)
def test_after_any_failures_only_the_rest_is_asked_for(
    spans: list[ByteRange], cuts: list[int], per_request: int, piece: int, together: int
) -> None:
    source = Bad(
        *((cut, fail()) for cut in cuts), spans=per_request, piece=piece, together=together
    )
    kept, world = fetch(source, spans)
    assert kept.holds(spans), "every wanted byte once, and no other"
    done = 0
    for number, asked in enumerate(source.asked):
        assert len(asked) <= per_request
        assert total(asked) <= total(spans) - done
        done += min(cuts[number], total(asked)) if number < len(cuts) else total(asked)
    assert len(world.retried) <= len(cuts)


def test_a_manifest_is_tried_again_and_counts_as_progress() -> None:
    world = World()
    source = Bad((0, fail()), (0, fail()))
    assert RetryingSource(source, world.chameleon).manifest(None).data == b"{}"
    assert source.manifests == 3
    assert len(world.slept) == 2


def test_no_progress_forever_ends() -> None:
    world = World(60)
    source = Bad(*[(0, None)] * 10_000)  # an endless row of empty answers
    with pytest.raises(TransferError, match="without a byte"):
        fetch(source, WHOLE, world)
    assert world.now <= 61
    assert len(source.asked) < 1000


def test_answers_to_several_spans_that_bring_nothing_pay_karma_too() -> None:
    world, source = World(60), Bad(*[(0, None)] * 10_000, spans=8)
    with pytest.raises(TransferError, match="without a byte"):
        fetch(source, [ByteRange(10, 20), ByteRange(30, 40), ByteRange(50, 60)], world)
    assert world.now <= 61
    assert len(source.asked) < 1000


def test_a_host_that_never_learns_how_many_spans_it_takes_pays_karma_too() -> None:
    class Refuses(Bad):
        def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
            self.asked.append(list(spans))
            raise MultiRangeRefusedError("not so many")

    world, source = World(10), Refuses(spans=8)
    with pytest.raises(TransferError, match="not so many"):
        fetch(source, [ByteRange(10, 20), ByteRange(30, 40)], world)
    assert world.now <= 11
    assert len(source.asked) <= 21 * (len(world.retried) + 1)


def test_slow_progress_through_any_number_of_failures_arrives() -> None:
    source = Bad(*[(10, fail())] * (len(BLOB) // 10 - 1))
    kept, world = fetch(source, WHOLE)
    assert kept.holds(WHOLE)
    assert len(world.retried) == len(BLOB) // 10 - 1
    assert all(wait <= 0.1 for wait in world.slept)


def test_an_error_behind_the_last_byte_is_no_error() -> None:
    kept, world = fetch(Bad((len(BLOB), fail())), WHOLE)
    assert kept.holds(WHOLE)
    assert world.retried == []


def test_bytes_that_were_here_already_earn_nothing() -> None:
    world = World(1)
    source = Bad(*[(10, fail())] * 5000)
    with pytest.raises(TransferError):
        RetryingSource(source, world.chameleon).fetch(DESCRIPTOR, WHOLE, lambda haul: 0)


def test_a_host_that_refuses_many_spans_is_asked_for_one_at_a_time() -> None:
    class Learns(Bad):
        def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
            if len(spans) > 1:
                self.spans = 1
                raise MultiRangeRefusedError("501")
            return super().read(blob, spans)

    spans = [ByteRange(10, 20), ByteRange(30, 40), ByteRange(50, 60)]
    source = Learns(spans=8)
    kept, world = fetch(source, spans)
    assert kept.holds(spans)
    assert source.asked == [[span] for span in spans]
    assert world.retried == []


def test_a_host_without_ranges_starts_a_whole_blob_again() -> None:
    class NoRanges(Bad):
        def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
            if list(spans) != WHOLE:
                self.asked.append(list(spans))
                raise RangeIgnoredError("200")
            return super().read(blob, spans)

    source = NoRanges((4000, fail()))
    kept, world = fetch(source, WHOLE)
    assert bytes(kept.count) == b"\2" * 4000 + b"\1" * 6000
    assert source.asked == [WHOLE, [ByteRange(4000, 10_000)], WHOLE]
    assert len(world.retried) == 1


def test_a_host_without_ranges_cannot_give_a_part() -> None:
    with pytest.raises(RangeIgnoredError):
        fetch(Bad((0, RangeIgnoredError("200"))), [ByteRange(5, 10)])


def test_a_failure_to_keep_is_not_the_networks_fault() -> None:
    def full(haul: Pieces) -> int:
        raise OSError("disk full")

    world = World()
    with pytest.raises(OSError, match="disk full"):
        RetryingSource(Bad(), world.chameleon).fetch(DESCRIPTOR, WHOLE, full)
    assert world.retried == []


def test_asking_for_nothing_asks_for_nothing() -> None:
    source = Bad()
    fetch(source, merge([]))
    assert source.asked == []


# ── what is not the network's fault, and what a person is told ──


def test_a_slow_disk_uses_up_no_patience() -> None:
    world = World(patience=10)
    with world.chameleon.local_work():
        world.now += 600
        assert world.chameleon.would_forgive()  # as the watchdog asks meanwhile
        with world.chameleon.local_work():  # another worker
            world.now += 600
    assert not world.chameleon.forgive(TransientError("reset")).is_final
    world.now += 20  # but silence of the network does
    assert world.chameleon.forgive(TransientError("reset")).is_final


def test_what_a_reader_keeps_slowly_is_local_work() -> None:
    world = World(patience=10)
    source = Bad((5000, TransientError("reset")), (len(BLOB), None))

    def keep(haul: Pieces) -> int:
        world.now += 100
        return sum(len(piece) for _, piece in haul)

    RetryingSource(source, world.chameleon).fetch(DESCRIPTOR, WHOLE, keep)
    assert len(world.retried) == 1


@pytest.mark.parametrize(("tries", "is_final"), [(1, False), (2, False), (3, True)])
def test_some_failures_are_worth_few_tries(tries: int, is_final: bool) -> None:
    decision = World().chameleon.forgive(TransientError("a quota", most_tries=3), tries=tries)
    assert decision.is_final == is_final


def test_few_tries_are_counted_by_request() -> None:
    world = World()
    source = Bad(*[(0, TransientError("a quota of pulls", most_tries=3))] * 9)
    with pytest.raises(
        TransferError, match="gave up after 3 tries: a quota of pulls; more tries seldom help"
    ):
        RetryingSource(source, world.chameleon).manifest(None)
    assert source.manifests == 3


def test_few_tries_are_those_that_end_alike() -> None:
    odd = TransientError(
        "of another size", most_tries=2, if_lasting=IntegrityError("it is of another size")
    )
    source = Bad((0, odd), (0, TransientError("reset")), (0, odd), (len(BLOB), None))
    RetryingSource(source, World().chameleon).fetch(DESCRIPTOR, WHOLE, len)


def test_what_lasts_is_told_as_what_it_is() -> None:
    odd = TransientError(
        "of another size", most_tries=2, if_lasting=IntegrityError("it is of another size")
    )
    with pytest.raises(IntegrityError, match="it is of another size"):
        RetryingSource(Bad((0, odd), (0, odd), (len(BLOB), None)), World().chameleon).fetch(
            DESCRIPTOR, WHOLE, len
        )


def _notes(world: World) -> list[str]:
    return [event.text for event in world.events if isinstance(event, Noted)]


def test_a_person_is_told_once_per_silence_and_why() -> None:
    world = World(patience=60)
    world.chameleon.gain(1)

    def look(times: int) -> None:
        for _ in range(times):
            world.now += 0.5
            world.chameleon.report_silence(is_fetching=True)

    world.chameleon.forgive(TransientError("h: connection refused"))
    look(5)
    assert not _notes(world)
    look(20)
    assert len(_notes(world)) == 1
    assert _notes(world)[0].startswith(
        "waiting for the network: h: connection refused; giving up in about "
    )
    world.chameleon.gain(1)
    look(20)
    assert len(_notes(world)) == 1  # nothing is asked for, so nothing is waited for
    world.chameleon.forgive(TransientError("429", retry_after=20))
    world.chameleon.report_silence(is_fetching=True)
    assert len(_notes(world)) == 2
    assert "429; the server asks to wait 20 s" in _notes(world)[1]


def test_nobody_is_told_of_a_silence_while_nothing_is_fetched_or_the_disk_is_slow() -> None:
    world = World()
    world.chameleon.forgive(TransientError("reset"))
    for _ in range(20):
        world.now += 1
        world.chameleon.report_silence(is_fetching=False)
    with world.chameleon.local_work():
        for _ in range(20):
            world.now += 1
            world.chameleon.report_silence(is_fetching=True)
    assert not _notes(world)
