"""Several registries as one.

Whoever breaks, every byte comes once and right, and only shared failure is failure.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.errors import (
    AccessDeniedError,
    MultiRangeRefusedError,
    NotFoundError,
    RangeIgnoredError,
    TransferError,
    TransientError,
    ZPullError,
)
from zchunked.events import Event, Noted
from zchunked.interfaces import Document, Pieces
from zchunked.oci.digest import Digest, digest_of
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange, merge
from zchunked.sources.http.errors.network_errors import HostTimeoutError, NoAnswerError
from zchunked.sources.mirrors import Member, MirroredSource

DATA = random.Random(5).randbytes(3000)
BLOB = Descriptor(
    "application/octet-stream", digest_of(DATA), len(DATA), urls=("http://elsewhere.invalid/",)
)
WHOLE = ByteRange(0, len(DATA))
Fault = tuple[int, Callable[[str], ZPullError]]
"""How many bytes come before it."""


@dataclass
class Scripted:
    """Serves DATA; each call takes the next fault from its script.

    The last fault may be there to stay.
    """

    faults: list[Fault | None] = field(default_factory=list)
    for_good: Fault | None = None
    spans: int = 1
    asked: list[list[ByteRange]] = field(default_factory=list)
    promises: list[Descriptor] = field(default_factory=list)
    documents: int = 0
    is_closed: bool = False

    def _fault(self) -> Fault | None:
        return self.faults.pop(0) if self.faults else self.for_good

    def manifest(self, digest: Digest | None) -> Document:
        self.documents += 1
        if fault := self._fault():
            raise fault[1]("manifest")
        return Document(b"{}", "")

    def spans_per_request(self, blob: Descriptor) -> int:
        return self.spans

    def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        assert len(spans) <= max(1, self.spans)
        self.asked.append(list(spans))
        self.promises.append(blob)
        fault, came = self._fault(), 0
        for span in spans:
            for at in range(span.start, span.end, 100):
                if fault and came >= fault[0]:
                    raise fault[1]("blob")
                piece = DATA[at : min(at + 100, span.end)]
                came += len(piece)
                yield [(at, piece)]
        if fault and came <= fault[0]:
            raise fault[1]("blob")

    def close(self) -> None:
        self.is_closed = True


def mirrored(*sources: Scripted) -> tuple[MirroredSource, list[Event]]:
    events: list[Event] = []
    last = len(sources) - 1
    members = [
        Member(f"m{number}", one, is_mirror=number != last) for number, one in enumerate(sources)
    ]
    source = MirroredSource(members)
    source.set_listener(events.append)
    return source, events


def said(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Noted)]


def read(source: MirroredSource, *spans: ByteRange) -> list[ByteRange]:
    """What came; all of it right, nothing twice."""
    came: list[ByteRange] = []
    for position, piece in chain.from_iterable(source.read(BLOB, list(spans) or [WHOLE])):
        assert DATA[position : position + len(piece)] == piece
        came.append(ByteRange(position, position + len(piece)))
    assert sum(span.size for span in came) == sum(span.size for span in merge(came))
    return merge(came)


DEAD: Fault = (0, NoAnswerError)


def test_a_break_in_the_middle_goes_on_with_the_missing_bytes_alone() -> None:
    first, second = Scripted([(1000, TransientError)]), Scripted()
    source, _ = mirrored(first, second)
    assert read(source) == [WHOLE]
    assert second.asked == [[ByteRange(1000, 3000)]]
    assert read(source) == [WHOLE]
    assert len(first.asked) == 2, "one break that brought bytes does not set it aside"


def test_the_successor_is_asked_for_as_many_spans_as_it_takes() -> None:
    spans = [ByteRange(0, 100), ByteRange(500, 600), ByteRange(900, 1000)]
    first, second = Scripted(for_good=(100, TransientError), spans=3), Scripted(spans=1)
    source, _ = mirrored(first, second)
    assert source.spans_per_request(BLOB) == 3
    assert read(source, *spans) == spans
    assert second.asked == [[spans[1]], [spans[2]]]


def test_a_host_that_takes_fewer_spans_than_it_said_is_asked_again() -> None:
    class Refusing(Scripted):
        def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
            if len(spans) > 1:
                self.spans = 1
                raise MultiRangeRefusedError("no")
            yield from super().read(blob, spans)

    source, events = mirrored(Refusing(spans=9), Scripted())
    spans = [ByteRange(0, 100), ByteRange(500, 600)]
    assert read(source, *spans) == spans
    assert not events


@pytest.mark.parametrize("kind", [NoAnswerError, HostTimeoutError])
def test_a_mirror_that_does_not_answer_is_not_waited_for_twice(kind: type[TransientError]) -> None:
    mirror, primary = Scripted(for_good=(0, kind)), Scripted()
    source, events = mirrored(mirror, primary)
    for _ in range(5):
        read(source)
    assert len(mirror.asked) == 1
    assert said(events) == ["going on without mirror m0: blob"]


def test_a_busy_mirror_is_set_aside_after_three_failures_in_a_row() -> None:
    mirror, primary = Scripted(for_good=(0, TransientError)), Scripted()
    source, events = mirrored(mirror, primary)
    for _ in range(5):
        read(source)
    assert (len(mirror.asked), len(events)) == (3, 1)


def test_a_mirror_set_aside_is_asked_again_when_all_else_fails() -> None:
    mirror, primary = Scripted([(1000, TransientError), DEAD]), Scripted([None, None, DEAD])
    source, _ = mirrored(mirror, primary)
    for _ in range(3):
        assert read(source) == [WHOLE]
    assert (len(mirror.asked), len(primary.asked)) == (3, 3), (
        "the primary first, as the mirror is aside"
    )
    read(source)
    assert len(mirror.asked) == 4, "it has answered, so all is forgiven"


def test_an_outage_of_all_at_once_sets_no_mirror_aside() -> None:
    mirror, primary = Scripted([(1000, TransientError), DEAD]), Scripted([None, DEAD])
    source, _ = mirrored(mirror, primary)
    read(source)
    with pytest.raises(TransientError):
        read(source)
    read(source)
    assert (len(mirror.asked), len(primary.asked)) == (3, 2)


def test_a_mirror_that_stalls_is_not_waited_for_again() -> None:
    mirror, primary = Scripted(for_good=(100, HostTimeoutError)), Scripted()
    source, _ = mirrored(mirror, primary)
    for _ in range(3):
        read(source)
    assert len(mirror.asked) == 1


def test_where_nobody_answers_everybody_is_asked_each_time() -> None:
    """No network at the start: the mirror may be the only one that ever comes back."""
    mirror, primary = Scripted([DEAD] * 2), Scripted(for_good=DEAD)
    source, _ = mirrored(mirror, primary)
    for _ in range(2):
        with pytest.raises(TransientError):
            read(source)
    assert read(source) == [WHOLE]


def test_a_primary_that_never_answers_is_not_waited_for_while_a_mirror_does() -> None:
    """A site without internet, and its mirror once had a bad moment or even sent a wrong byte."""
    mirror, primary = Scripted([DEAD]), Scripted(for_good=DEAD)
    source, _ = mirrored(mirror, primary)
    with pytest.raises(TransientError):
        read(source)
    for _ in range(3):
        read(source)
    source.report_corruption(BLOB.digest)
    for _ in range(3):
        read(source)
    assert len(primary.asked) == 1


def test_a_mirror_that_refuses_us_is_asked_no_more() -> None:
    mirror, primary = Scripted(for_good=(0, AccessDeniedError)), Scripted([DEAD])
    source, events = mirrored(mirror, primary)
    with pytest.raises(TransientError, match="mirror m0: blob"):
        read(source)
    read(source)
    assert (len(mirror.asked), len(events)) == (1, 1)


def test_404_counts_for_that_blob_alone() -> None:
    mirror, primary = Scripted([(0, NotFoundError)]), Scripted()
    source, events = mirrored(mirror, primary)
    read(source)
    read(source)
    assert len(mirror.asked) == 1
    source.manifest(BLOB.digest[:-1] + "0")  # type: ignore[arg-type]
    assert not events


def test_what_the_primary_says_for_good_is_final_unless_a_mirror_that_lives_had_a_hiccup() -> None:
    source, _ = mirrored(Scripted(for_good=DEAD), Scripted(for_good=(0, NotFoundError)))
    with pytest.raises(NotFoundError):
        source.manifest(None)
    source, _ = mirrored(
        Scripted([None, (500, TransientError)]), Scripted(for_good=(0, NotFoundError))
    )
    read(source)
    with pytest.raises(TransientError):
        read(source)
    assert read(source) == [WHOLE]


def test_a_wish_to_wait_is_granted_only_when_all_wish_it() -> None:
    def busy(text: str) -> TransientError:
        return TransientError(text, retry_after=30)

    source, _ = mirrored(Scripted(for_good=(0, busy)), Scripted(for_good=(0, busy)))
    with pytest.raises(TransientError) as caught:
        source.manifest(None)
    assert caught.value.retry_after == 30
    source, _ = mirrored(Scripted(for_good=(0, TransientError)), Scripted(for_good=(0, busy)))
    with pytest.raises(TransientError) as caught:
        source.manifest(None)
    assert caught.value.retry_after is None


def test_a_mirror_that_lied_is_dropped_and_the_next_read_goes_elsewhere() -> None:
    mirror, primary = Scripted(), Scripted()
    source, events = mirrored(mirror, primary)
    read(source, ByteRange(0, 1000))
    source.report_corruption(BLOB.digest, [ByteRange(1000, 2000)])
    assert not events, "it did not send those"
    source.report_corruption(BLOB.digest, [ByteRange(900, 1100)])
    source.report_corruption(BLOB.digest, [ByteRange(900, 1100)])
    read(source)
    assert (len(mirror.asked), len(primary.asked), len(events)) == (1, 1, 1)


def test_only_who_sent_the_wrong_bytes_is_to_blame() -> None:
    first, second, primary = Scripted([(1000, TransientError)]), Scripted(), Scripted()
    source, events = mirrored(first, second, primary)
    read(source)
    source.report_corruption(BLOB.digest, [ByteRange(2000, 2100)])
    assert "m1" in said(events)[-1]
    read(source)
    assert (len(first.asked), len(second.asked), len(primary.asked)) == (2, 1, 0)


def test_a_document_that_is_wrong_is_fetched_from_somebody_else() -> None:
    mirror, primary = Scripted(), Scripted()
    source, events = mirrored(mirror, primary)
    for _ in range(2):
        source.manifest(None)
    source.report_corruption(None)
    source.manifest(None)
    assert (mirror.documents, primary.documents, len(events)) == (2, 1, 1)


def test_a_primary_that_lied_comes_after_the_mirrors_that_were_set_aside() -> None:
    mirror, primary = Scripted([None, DEAD]), Scripted()
    source, _ = mirrored(mirror, primary)
    read(source, ByteRange(0, 10))
    read(source)
    source.report_corruption(BLOB.digest, [ByteRange(100, 200)])
    read(source)
    assert (len(mirror.asked), len(primary.asked)) == (3, 1)


def test_one_without_ranges_is_said_to_the_reader_as_long_as_it_is_first() -> None:
    source, events = mirrored(Scripted([(0, RangeIgnoredError)]), Scripted())
    with pytest.raises(RangeIgnoredError):
        read(source, ByteRange(0, 100))
    source, events = mirrored(Scripted([(100, TransientError)]), Scripted([(0, RangeIgnoredError)]))
    with pytest.raises(RangeIgnoredError):
        read(source, ByteRange(0, 200))
    assert not events


def test_only_the_primary_hears_of_other_places() -> None:
    mirror, primary = Scripted([DEAD]), Scripted()
    source, _ = mirrored(mirror, primary)
    read(source)
    assert mirror.promises[0].urls == ()
    assert primary.promises == [BLOB]


def test_all_are_closed() -> None:
    members = [Scripted(), Scripted()]
    mirrored(*members)[0].close()
    assert all(member.is_closed for member in members)


KINDS = [
    TransientError,
    NoAnswerError,
    HostTimeoutError,
    NotFoundError,
    AccessDeniedError,
    TransferError,
]
FAULTS = st.none() | st.tuples(st.integers(0, 3000), st.sampled_from(KINDS))


@given(
    st.lists(st.lists(FAULTS, max_size=4), min_size=1, max_size=4),
    st.lists(st.integers(0, 2999), min_size=1, max_size=5, unique=True),
    st.booleans(),
)
def test_whatever_breaks_what_comes_is_right_and_an_end_without_an_error_is_the_end(
    scripts: list[list[Fault | None]], edges: list[int], has_lied: bool
) -> None:
    source, _ = mirrored(*[Scripted(list(script)) for script in scripts])
    spans = merge([ByteRange(edge, min(edge + 50, 3000)) for edge in edges])
    for _ in range(6):
        with suppress(ZPullError):
            assert read(source, *spans) == spans
        if has_lied:
            source.report_corruption(BLOB.digest)
    kinds = {fault[1] for script in scripts for fault in script if fault}
    if kinds <= {TransientError, NoAnswerError, HostTimeoutError}:
        assert read(source, *spans) == spans, "what passes, passes"


def test_where_a_blob_lies_is_told_by_the_first_that_has_it() -> None:
    @dataclass
    class Telling(Scripted):
        url: str = ""

        def size_of(self, digest: Digest) -> int | None:
            if not self.url:
                raise NotFoundError("nothing here")
            return 3000

        def locate(self, digest: Digest) -> str:
            self.size_of(digest)
            return self.url

    source, _ = mirrored(Telling(), Telling(url="https://second/blob"))
    assert source.locate(BLOB.digest) == "https://second/blob"
    assert source.size_of(BLOB.digest) == 3000
    with pytest.raises(NotFoundError):
        mirrored(Telling(), Telling())[0].locate(BLOB.digest)
    with pytest.raises(NotFoundError):
        mirrored(Scripted())[0].locate(BLOB.digest)
