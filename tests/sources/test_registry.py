"""A registry through the loopback server: what is asked, what is believed, and what is counted."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.images import Layout
from tests.helpers.servers import faults
from tests.helpers.servers.answers import Answer, Piece, plain
from tests.helpers.servers.faults import Fault, on
from tests.helpers.servers.registry import Registry
from tests.sources.conftest import BLOB, DATA, MANIFEST, Open
from zchunked.errors import (
    AccessDeniedError,
    LimitError,
    MultiRangeRefusedError,
    NotFoundError,
    PermanentError,
    RangeIgnoredError,
    TransferError,
    TransientError,
    UsageError,
    ZPullError,
)
from zchunked.limits import Limits
from zchunked.oci.digest import digest_of
from zchunked.oci.documents import OCI_MANIFEST, Descriptor
from zchunked.ranges import ByteRange, merge
from zchunked.sources.http.ranges.range_reader import RunMemory
from zchunked.sources.registry import RegistrySource
from zchunked.sources.traffic import Traffic

WHOLE = [ByteRange(0, len(DATA))]
ONE = [ByteRange(1000, 200_000)]
MANY = [ByteRange(at, at + 10 + at % 700) for at in range(0, 200_000, 1000)]


def take(
    source: RegistrySource, spans: Sequence[ByteRange], blob: Descriptor = BLOB
) -> list[ByteRange]:
    """Which bytes came, all of them right and none of them twice."""
    came: list[ByteRange] = []
    for position, piece in chain.from_iterable(source.read(blob, spans)):
        assert piece == DATA[position : position + len(piece)]
        came.append(ByteRange(position, position + len(piece)))
    assert sum(span.size for span in came) == sum(span.size for span in merge(came))
    return merge(came)


def take_some(
    source: RegistrySource, spans: Sequence[ByteRange]
) -> tuple[list[ByteRange], ZPullError | None]:
    """As `take`; what ended it comes out as a value."""
    came: list[ByteRange] = []
    try:
        for position, piece in chain.from_iterable(source.read(BLOB, spans)):
            assert piece == DATA[position : position + len(piece)]
            came.append(ByteRange(position, position + len(piece)))
    except ZPullError as error:
        return merge(came), error
    return merge(came), None


def balanced(registry: Registry, traffic: Traffic) -> None:
    """Our count agrees with the server's, to the byte."""
    assert traffic.fetched == registry.accounts.body_bytes
    assert traffic.requests == len(registry.accounts.requests)


ROADS: dict[str, dict[str, Any]] = {
    "open": {},
    "basic": {"auth": "basic"},
    "bearer": {"auth": "bearer", "credentials": ("user", "secret")},
    "redirect": {"redirect": True},
    "both": {"auth": "bearer", "redirect": True, "redirect_status": 302},
}


@pytest.mark.parametrize("switches", ROADS.values(), ids=ROADS)
def test_manifest_ranges_and_whole_blob(
    layout: Layout, open_at: Open, traffic: Traffic, switches: dict[str, Any]
) -> None:
    with Registry(layout, **switches) as registry:
        source = open_at(registry, credentials=("user", "secret"))
        document = source.manifest(None)
        assert (document.data, document.media_type) == (MANIFEST, OCI_MANIFEST)
        assert source.manifest(digest_of(MANIFEST)).data == MANIFEST
        assert take(source, ONE) == ONE
        assert take(source, WHOLE) == WHOLE
        assert take(source, []) == []
        balanced(registry, traffic)
        assert registry.accounts.requests[-1].range is None
        assert not registry.accounts.cdn_saw_authorization
        assert registry.accounts.connections <= 3  # one of them in vain: TLS is tried first


def test_not_found(layout: Layout, open_at: Open) -> None:
    with Registry(layout) as registry:
        with pytest.raises(
            NotFoundError, match=r"demo:none: 404 Not Found, the server says 'MANIFEST_UNKNOWN"
        ):
            open_at(registry, "none").manifest(None)
        with pytest.raises(NotFoundError, match="BLOB_UNKNOWN"):
            take(open_at(registry), ONE, Descriptor("x", digest_of(b"other"), 300_000))


def test_access_denied(layout: Layout, open_at: Open) -> None:
    for auth in ("basic", "bearer"):
        with Registry(layout, auth=auth, credentials=("user", "secret")) as registry:
            with pytest.raises(AccessDeniedError, match=r"no credentials for .*podman login"):
                open_at(registry).manifest(None)
            with pytest.raises(AccessDeniedError, match="of user 'user' do not open it") as caught:
                open_at(registry, credentials=("user", "hush")).manifest(None)
            assert "hush" not in str(caught.value)


def test_an_oversized_manifest_is_not_read(layout: Layout, open_at: Open, traffic: Traffic) -> None:
    with Registry(layout) as registry:
        with pytest.raises(LimitError):
            open_at(registry, limits=Limits(manifest_bytes=len(MANIFEST) - 1)).manifest(None)
        assert traffic.fetched == 0
        assert (
            open_at(registry, limits=Limits(manifest_bytes=len(MANIFEST))).manifest(None).data
            == MANIFEST
        )
    with (
        Registry(layout, faults=[on("manifest", faults.chunked())]) as registry,
        pytest.raises(LimitError),
    ):
        open_at(registry, limits=Limits(manifest_bytes=len(MANIFEST) - 1)).manifest(None)


# ── when things break ──


@pytest.mark.parametrize("spans", [ONE, WHOLE], ids=["range", "whole"])
@pytest.mark.parametrize(
    ("fault", "came"),
    [
        (faults.reset(after=100_000), 100_000),
        (faults.cut(after=100_000), 100_000),
        (faults.cut_chunked(after=100_000), 100_000),
        (faults.stall(5, after=50_000), 50_000),
        (faults.missing(500), -500),
        (faults.empty(), 0),
        (faults.refuse(), 0),
        (faults.refuse(how="rst"), 0),
        (faults.fail(503), 0),
        (faults.fail(429), 0),
    ],
    ids=lambda value: value.__qualname__.split(".")[0] if callable(value) else "",
)
def test_what_arrived_before_a_break_is_handed_on(
    layout: Layout, open_at: Open, traffic: Traffic, fault: Fault, came: int, spans: list[ByteRange]
) -> None:
    with Registry(layout, faults=[on("blob", fault)]) as registry:
        got, error = take_some(open_at(registry, stall_seconds=0.2), spans)
        assert isinstance(error, TransientError)
        size = came if came >= 0 else spans[0].size + came
        assert got == ([ByteRange(spans[0].start, spans[0].start + size)] if size else [])
        balanced(registry, traffic)


@pytest.mark.parametrize("spans", [ONE, WHOLE], ids=["range", "whole"])
@pytest.mark.parametrize(
    "fault", [faults.chunked(), faults.close(), faults.extra(500), faults.claim_gzip()]
)
def test_what_is_odd_but_right_is_taken(
    layout: Layout, open_at: Open, fault: Fault, spans: list[ByteRange]
) -> None:
    with Registry(layout, faults=[on("blob", fault)]) as registry:
        assert take(open_at(registry), spans) == spans


def _page(answer: Answer, dice: object) -> Answer:
    return answer.with_body(Piece(b"<html>Sign in</html>")).with_headers(
        Content_Type="text/html", Content_Range=None
    )


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("spans", [ONE, WHOLE, MANY], ids=["one", "whole", "many"])
def test_a_page_in_place_of_a_blob_is_final_and_teaches_nothing(
    layout: Layout, open_at: Open, spans: list[ByteRange], is_chunked: bool
) -> None:
    def fault(answer: Answer, dice: Any) -> Answer:
        return replace(_page(answer, dice), status=200, chunked=is_chunked)

    with Registry(layout, faults=[on("blob", fault)]) as registry:
        hosts = RunMemory()
        got, error = take_some(open_at(registry, hosts=hosts), spans)
        assert not got
        if not is_chunked:
            assert isinstance(error, PermanentError)
            assert "(HTML) came in its place, '<html>Sign in" in str(error)
            assert not hosts._known


def test_a_page_in_place_of_a_manifest_is_final(layout: Layout, open_at: Open) -> None:
    with (
        Registry(layout, faults=[on("manifest", _page)]) as registry,
        pytest.raises(PermanentError, match="HTML"),
    ):
        open_at(registry).manifest(None)


def test_a_packed_manifest_and_a_packed_config_are_unpacked(
    layout: Layout, open_at: Open, traffic: Traffic
) -> None:
    text = b'{"architecture":"amd64","os":"linux"}' * 9
    config = Descriptor("x", digest_of(text), len(text))
    layout.blobs[config.digest] = text

    def packed(answer: Answer, dice: object) -> Answer:
        if answer.status != 200:
            return answer
        data = gzip.compress(b"".join([bytes(piece.data) for piece in answer.body]))
        return answer.with_body(Piece(data)).with_headers(Content_Encoding="gzip")

    with Registry(
        layout,
        single_range="200",
        multi_range="200",
        faults=[on("manifest", packed), on("blob", packed)],
    ) as registry:
        source = open_at(registry)
        assert source.manifest(None).data == MANIFEST
        came = b"".join(
            [
                bytes(piece)
                for _, piece in chain.from_iterable(source.read(config, [ByteRange(0, len(text))]))
            ]
        )
        assert came == text
        assert traffic.fetched == registry.accounts.body_bytes


def test_a_host_that_refuses_ranges_with_403_sends_the_whole_blob(
    layout: Layout, open_at: Open
) -> None:
    for redirect in (False, True):
        with Registry(layout, redirect=redirect, faults=[on("blob", _no_ranges)]) as registry:
            source = open_at(registry)
            assert take(source, ONE) == [ByteRange(0, len(DATA))]
            assert source.spans_per_request(BLOB) == 0
    with Registry(layout, faults=[on("blob", faults.fail(403))]) as registry:
        source = open_at(registry)
        assert isinstance(take_some(source, ONE)[1], AccessDeniedError)
        assert source.spans_per_request(BLOB) == 1  # nothing was learnt


def _no_ranges(answer: Answer, dice: object) -> Answer:
    return plain(403, b"no ranges") if answer.status == 206 else answer


def _empty_206(answer: Answer, dice: object) -> Answer:
    several = "multipart" in answer.headers.get("Content-Type", "")
    return answer.with_body() if several else answer


def _last_boundary_alone(answer: Answer, dice: object) -> Answer:
    _, several, boundary = answer.headers.get("Content-Type", "").partition("boundary=")
    return answer.with_body(Piece(f"\r\n--{boundary}--\r\n".encode())) if several else answer


@pytest.mark.parametrize("fault", [_empty_206, _last_boundary_alone])
def test_answers_to_several_ranges_that_bring_nothing_are_followed_by_single_ones(
    layout: Layout, open_at: Open, fault: Fault
) -> None:
    with Registry(layout, faults=[on("blob", fault)]) as registry:
        source = open_at(registry)
        error: ZPullError | None = None
        came: list[ByteRange] = []
        for _ in range(3):
            got, error = take_some(source, MANY)
            came += got
            if error is None:
                break
        assert error is None
        assert merge(came) == MANY
        assert len(registry.accounts.requests) <= len(MANY) + 8


def test_a_host_that_takes_fewer_spans_each_time_is_not_asked_for_ever(
    layout: Layout, open_at: Open
) -> None:
    class Optimist:
        """Remembers that the host takes very many, whatever is learnt but one."""

        def __init__(self) -> None:
            self.most = 185

        def recall(self, host: str) -> int:
            return self.most

        def learn(self, host: str, spans: int) -> None:
            self.most = spans

    refused = 0

    def fault(answer: Answer, dice: object) -> Answer:
        nonlocal refused
        if "multipart" not in answer.headers.get("Content-Type", ""):
            return answer
        refused += 1
        return answer if refused == 1 else plain(413, b"too many")

    spans = [ByteRange(at, at + 10) for at in range(0, 290_000, 1000)]
    with Registry(layout, faults=[on("blob", fault)]) as registry:
        assert take(open_at(registry, hosts=Optimist()), spans) == spans
        assert refused < 12


@pytest.mark.parametrize(
    "fault", [faults.shift_content_range(), faults.wrong_total(), faults.no_content_range()]
)
def test_a_206_for_something_else_is_refused(layout: Layout, open_at: Open, fault: Fault) -> None:
    with Registry(layout, faults=[on("blob", fault)]) as registry:
        assert isinstance(take_some(open_at(registry), ONE)[1], TransientError)


@pytest.mark.parametrize(
    ("status", "kind"), [(404, NotFoundError), (403, AccessDeniedError), (418, PermanentError)]
)
def test_what_is_final(layout: Layout, open_at: Open, status: int, kind: type[Exception]) -> None:
    with Registry(layout, faults=[on("blob", faults.fail(status))]) as registry:
        for spans in (ONE, WHOLE):
            assert type(take_some(open_at(registry), spans)[1]) is kind


def test_the_wish_to_wait_is_passed_on(layout: Layout, open_at: Open) -> None:
    rules = [
        on("blob", faults.fail(503, retry_after=7), nth=1),
        on("blob", faults.fail_as_ghcr(), nth=2),
    ]
    with Registry(layout, faults=rules) as registry:
        source = open_at(registry)
        errors = [take_some(source, ONE)[1] for _ in range(2)]
        assert [error.retry_after for error in errors if isinstance(error, TransientError)] == [
            7.0,
            pytest.approx(880e-6),
        ]


def test_a_dead_host_is_waited_for_and_one_that_does_not_exist_is_not(
    layout: Layout, open_at: Open, traffic: Traffic
) -> None:
    with Registry(layout) as registry:
        address = registry.reference("v1")
    with pytest.raises(TransientError, match="connection refused"):
        open_at(address).manifest(None)
    with pytest.raises(PermanentError, match="the name does not exist"):
        open_at("no-such-host.invalid/x:y").manifest(None)
    assert traffic.requests == 0


# ── renewals, which cost nothing ──


@pytest.mark.parametrize(
    "switches",
    [
        {"auth": "bearer", "token_uses": 5},
        {"auth": "bearer", "token_uses": 1},
        {"redirect": True, "url_uses": 3},
        {"redirect": True, "url_uses": 1},
        {"auth": "bearer", "token_uses": 3, "redirect": True, "url_uses": 2},
    ],
    ids=str,
)
def test_tokens_and_redirects_that_run_out(
    layout: Layout, open_at: Open, traffic: Traffic, switches: dict[str, Any]
) -> None:
    with Registry(layout, **switches) as registry:
        source = open_at(registry)
        source.manifest(None)
        spans = [ByteRange(at, at + 5000) for at in range(0, 200_000, 5000)]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda span: take(source, [span]), spans)) == [
                [span] for span in spans
            ]
        balanced(registry, traffic)
        assert not registry.accounts.cdn_saw_authorization


def test_an_expired_redirect_is_resolved_once_for_all(layout: Layout, open_at: Open) -> None:
    with Registry(layout, redirect=True) as registry:
        source = open_at(registry)
        with ThreadPoolExecutor(8) as pool:
            for expiries in range(3):
                list(pool.map(lambda at: take(source, [ByteRange(at, at + 10)]), range(16)))
                assert registry.accounts.count("redirect") == expiries + 1
                registry.urls.revoke()


def test_an_expired_token_is_renewed_once_for_all(layout: Layout, open_at: Open) -> None:
    with Registry(layout, auth="bearer") as registry:
        source = open_at(registry)
        with ThreadPoolExecutor(8) as pool:
            for expiries in range(3):
                list(pool.map(lambda at: take(source, [ByteRange(at, at + 10)]), range(16)))
                assert registry.accounts.count("token") == expiries + 1
                registry.tokens.revoke()


def test_a_host_that_refuses_every_new_url_is_final(layout: Layout, open_at: Open) -> None:
    with Registry(layout, redirect=True, url_uses=0) as registry:
        assert isinstance(take_some(open_at(registry), ONE)[1], AccessDeniedError)
        assert registry.accounts.count("redirect") == 1


def test_many_threads_ask_the_registry_once(layout: Layout, open_at: Open) -> None:
    with Registry(layout, redirect=True, auth="bearer", latency=0.02) as registry:
        source = open_at(registry)
        source.manifest(None)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda at: take(source, [ByteRange(at, at + 100)]), range(0, 8000, 1000)))
        assert registry.accounts.count("redirect") == 1
        assert registry.accounts.count("token") == 1


# ── what a host can do ──


class Memory:
    """What was learnt, in the open."""

    def __init__(self, known: int | None = None) -> None:
        self.known = known
        self.hosts: set[str] = set()

    def recall(self, host: str) -> int | None:
        return self.known

    def learn(self, host: str, spans: int) -> None:
        self.known = spans
        self.hosts.add(host)


def test_what_is_known_of_a_host(layout: Layout, open_at: Open) -> None:
    with Registry(layout) as registry:
        for known, spans in [(None, 1), (0, 0), (1, 1), (50, 50), (9999, 185)]:
            assert open_at(registry, hosts=Memory(known)).spans_per_request(BLOB) == spans


@pytest.mark.parametrize("status", ["400", "501"])
def test_a_host_without_ranges_is_known_as_one(layout: Layout, open_at: Open, status: Any) -> None:
    memory = Memory()
    with Registry(layout, single_range=status, redirect=True) as registry:
        source = open_at(registry, hosts=memory)
        got, error = take_some(source, ONE)
        assert (got, type(error)) == ([], RangeIgnoredError)
        assert memory.hosts == {registry.cdn}
        assert source.spans_per_request(BLOB) == 0
        assert take(source, WHOLE) == WHOLE


def test_a_host_that_answers_a_range_with_the_whole_blob_gives_all_of_it(
    layout: Layout, open_at: Open
) -> None:
    memory = Memory()
    with Registry(layout, single_range="200", redirect=True) as registry:
        source = open_at(registry, hosts=memory)
        assert take(source, ONE) == WHOLE
        assert memory.hosts == {registry.cdn}
        assert source.spans_per_request(BLOB) == 0


def test_a_cache_that_has_warmed_up_has_ranges_again(layout: Layout, open_at: Open) -> None:
    with Registry(layout, single_range="200-then-206") as registry:
        source = open_at(registry)
        assert take(source, ONE) == WHOLE
        assert source.spans_per_request(BLOB) == 0
        assert take(source, ONE) == ONE
        assert source.spans_per_request(BLOB) == 1


def test_a_range_under_200_is_a_range(layout: Layout, open_at: Open) -> None:
    with Registry(layout, single_range="200-with-content-range") as registry:
        assert take(open_at(registry), ONE) == ONE


@pytest.mark.parametrize("multi_range", ["206", "reordered", "coalesced"])
@pytest.mark.parametrize("boundary", ["part", "CloudFront:0123:abc"])
def test_many_spans_in_one_request(
    layout: Layout, open_at: Open, traffic: Traffic, multi_range: Any, boundary: str
) -> None:
    memory = Memory()
    with Registry(layout, multi_range=multi_range, boundary=boundary) as registry:
        source = open_at(registry, hosts=memory)
        assert take(source, MANY) == MANY
        assert registry.accounts.count() == 2
        assert memory.known == 185
        balanced(registry, traffic)
        assert all(len(request.range or "") <= 4096 for request in registry.accounts.requests)


def test_parts_that_are_left_out_are_asked_for_one_by_one(layout: Layout, open_at: Open) -> None:
    memory = Memory()
    with Registry(layout, multi_range="single-only-first") as registry:
        source = open_at(registry, hosts=memory)
        assert take(source, MANY[:10]) == MANY[:10]
        assert memory.known == 1
        assert registry.accounts.count() == 10
        assert take(source, MANY[10:15]) == MANY[10:15]
        assert registry.accounts.count() == 15


@pytest.mark.parametrize("multi_range", ["200", "400", "416", "501", "502"])
def test_several_ranges_refused(layout: Layout, open_at: Open, multi_range: Any) -> None:
    memory = Memory()
    with Registry(layout, multi_range=multi_range, redirect=True) as registry:
        source = open_at(registry, hosts=memory)
        got, error = take_some(source, MANY[:5])
        assert (got, type(error)) == ([], MultiRangeRefusedError)
        assert (memory.known, memory.hosts) == (1, {registry.cdn})
        assert take(source, MANY[:5]) == MANY[:5]


def test_too_many_ranges_become_fewer(layout: Layout, open_at: Open) -> None:
    memory = Memory(185)
    with Registry(layout, max_ranges=50) as registry:
        source = open_at(registry, hosts=memory)
        for known in (92, 46):
            spans = MANY[: source.spans_per_request(BLOB)]
            assert isinstance(take_some(source, spans)[1], MultiRangeRefusedError)
            assert memory.known == known
        assert take(source, MANY[:46]) == MANY[:46]


@pytest.mark.parametrize(
    "fault",
    [faults.cut(after=20_000), faults.reset(after=20_000), faults.missing(3000)],
    ids=lambda fault: fault.__qualname__.split(".")[0],
)
def test_a_multipart_body_that_breaks_off_keeps_its_parts(
    layout: Layout, open_at: Open, fault: Fault
) -> None:
    memory = Memory()
    with Registry(layout, faults=[on("blob", fault)]) as registry:
        got, error = take_some(open_at(registry, hosts=memory), MANY)
        assert isinstance(error, TransientError)
        assert got
        assert memory.known is None


@pytest.mark.parametrize(
    "fault", [faults.garbage_boundary(), faults.no_boundary(), faults.replaced(b"x" * 9000)]
)
def test_multipart_nonsense_teaches_single_ranges(
    layout: Layout, open_at: Open, fault: Fault
) -> None:
    memory = Memory()
    with Registry(layout, faults=[on("blob", fault)]) as registry:
        got, error = take_some(open_at(registry, hosts=memory), MANY)
        assert got == []
        assert isinstance(error, (TransientError, MultiRangeRefusedError))
        assert memory.known == 1


def test_plain_http_is_for_loopback_or_on_demand(layout: Layout, open_at: Open) -> None:
    with Registry(layout) as registry:
        assert open_at(registry, plain_http=True).manifest(None).data == MANIFEST
        assert registry.accounts.connections == 1  # TLS was not tried
        source = open_at(registry)
        source._endpoint._may_be_plain = False  # as for a host that is not this machine
        with pytest.raises(TransferError, match="--plain-http"):
            source.manifest(None)


def test_an_authfile_that_does_not_exist_is_an_error_although_nobody_asks_for_credentials(
    open_at: Open,
) -> None:
    with pytest.raises(UsageError, match=r"/nowhere\.json: there is no such file"):
        open_at("localhost:5000/demo:v1", authfile=Path("/nowhere.json"))
