"""Every fault at every kind of request, as a user meets it.

The command, a real socket, and a server that counts.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.harness.rough import (
    assert_right,
    everywhere,
    gzip_of,
    run,
    used,
    versions,
    with_v1,
)
from tests.helpers.servers.accounts import covered
from tests.helpers.servers.faults import (
    Fault,
    chunked,
    claim_gzip,
    close,
    cut,
    cut_chunked,
    empty,
    extra,
    fail,
    fail_as_ghcr,
    flip,
    garbage_boundary,
    garbage_type,
    missing,
    no_boundary,
    no_content_range,
    on,
    refuse,
    replaced,
    reset,
    shift_content_range,
    stall,
    trickle,
    wrong_total,
)
from tests.helpers.servers.registry import Registry

V2 = versions()["v2"]

BROKEN: dict[str, Fault] = {
    "hangs up before a word": refuse(),
    "resets before a word": refuse(how="rst"),
    "resets after the head": reset(after=0),
    "resets in the body": reset(after=70),
    "ends the body early": cut(after=70),
    "ends a chunked body early": cut_chunked(after=70),
    "stalls before the head": stall(60, after=-1),
    "stalls in the body": stall(60, after=70),
    "closes behind the body": close(),
    "sends it chunked": chunked(),
    "408": fail(408),
    "425": fail(425),
    "429": fail(429),
    "429 as GHCR says it": fail_as_ghcr(),
    "500": fail(500),
    "502": fail(502),
    "503": fail(503),
    "503, come back": fail(503, retry_after=0.2),
    "504": fail(504),
    "507": fail(507, body=b"\xff\x00<html>"),
    "nothing": empty(),
    "misses bytes": missing(40),
}
"""Whatever came was good: not a byte of it may come twice."""

MISLEADING: dict[str, Fault] = {
    "has bytes to spare": extra(40),
    "speaks of other bytes": shift_content_range(),
    "speaks of another blob": wrong_total(),
    "names no range": no_content_range(),
    "claims gzip": claim_gzip(),
    "has a type of garbage": garbage_type(),
    "announces parts that never come": garbage_boundary(),
    "announces parts without a boundary": no_boundary(),
    "is something else": replaced(b"come back later\n" * 20),
}
"""An answer that cannot be trusted is thrown away."""

HARMLESS = {
    "sends it chunked",
    "closes behind the body",
    "has bytes to spare",
    "has a type of garbage",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.mark.parametrize("name", BROKEN)
def test_an_update_survives_a_request_that(name: str, cache: Path, tmp_path: Path) -> None:
    with Registry(versions(), auth="bearer", faults=everywhere(BROKEN[name], V2)) as registry:
        receipt = run(with_v1(tmp_path, cache), registry, "v2", "--stall-timeout", "0.5").receipt
        assert all(used(registry)), "every rule must have had its chance"
        blobs = sum(len(data) for data in V2.blobs.values())
        assert registry.accounts.sent_twice() <= 0.02 * blobs
        assert receipt["bytes"]["fetched"] == registry.accounts.body_bytes, (
            "the receipt and the server agree"
        )
        # A connection that is closed without a word may be noticed only by the next request on it.
        assert name == "closes behind the body" or (receipt["retries"] > 0) is (
            name not in HARMLESS
        )
        assert_right(tmp_path, registry, "v2")


@pytest.mark.parametrize("name", MISLEADING)
def test_an_update_survives_an_answer_that(name: str, cache: Path, tmp_path: Path) -> None:
    with Registry(versions(), auth="bearer", faults=everywhere(MISLEADING[name], V2)) as registry:
        run(with_v1(tmp_path, cache), registry, "v2")
        assert all(used(registry))
        assert_right(tmp_path, registry, "v2")


@pytest.mark.parametrize(
    "name", ["resets in the body", "503", "hangs up before a word", "stalls in the body", "nothing"]
)
def test_redirects_and_their_targets_may_fail_too(name: str, tmp_path: Path) -> None:
    fault = BROKEN[name] if name != "resets in the body" else reset(after=5)
    rules = [*everywhere(fault, V2), on("redirect", fault, nth=(1, 3))]
    with Registry(versions(), auth="bearer", redirect=True, faults=rules) as registry:
        receipt = run(tmp_path, registry, "v2", "--stall-timeout", "0.5").receipt
        assert receipt["retries"] > 0
        assert receipt["bytes"]["fetched"] == registry.accounts.body_bytes
        assert registry.accounts.sent_twice() == 0
        assert not registry.accounts.cdn_saw_authorization
        assert_right(tmp_path, registry, "v2")


@pytest.mark.parametrize(
    "fault", [reset(after=64 << 10), cut(after=64 << 10)], ids=["reset", "closed"]
)
def test_every_connection_breaks_after_64_kib(fault: Fault, tmp_path: Path) -> None:
    with Registry(versions(), auth="bearer", faults=[on("any", fault)]) as registry:
        receipt = run(tmp_path, registry, "v2").receipt
        assert receipt["retries"] >= 5
        assert registry.accounts.sent_twice() <= 0.02 * registry.accounts.blob_bytes
        assert receipt["bytes"]["wasted"] <= 0.02 * receipt["bytes"]["fetched"]
        assert_right(tmp_path, registry, "v2")


def test_a_tenth_of_all_answers_is_503(tmp_path: Path) -> None:
    with Registry(
        versions(), auth="bearer", faults=[on("any", fail(503), probability=0.1)], seed=3
    ) as registry:
        run(tmp_path, registry, "v2", "-j", "4")
        run(tmp_path, registry, "v1", "-j", "4")
        assert registry.accounts.sent_twice() == 0
        assert_right(tmp_path, registry, "v2")


def test_a_trickle_is_borne_and_every_byte_is_kept(tmp_path: Path) -> None:
    with Registry(versions(), faults=[on(("toc", "blob"), trickle(4096, 0.01))]) as registry:
        receipt = run(tmp_path, registry, "v1").receipt
        assert receipt["retries"] == registry.accounts.sent_twice() == 0


# ── damage ──


@pytest.mark.parametrize("is_update", [True, False], ids=["update", "cold"])
def test_a_chunk_that_comes_damaged_once_is_fetched_once_more_and_alone(
    is_update: bool, cache: Path, tmp_path: Path
) -> None:
    layer = versions()["v2"].layers[0]
    new = next(c for c in layer.chunks if c.file.startswith("usr/share/3/"))
    home = with_v1(tmp_path, cache) if is_update else tmp_path
    rule = on(
        "blob", flip(new.start + 100), times=1, when=lambda request: request.digest == layer.digest
    )
    with Registry(versions(), faults=[rule], multi_range="400") as registry:
        # The rule is used up by the first request for the layer, whether or not the chunk is in it:
        # one connection.
        receipt = run(home, registry, "v2", "-j", "1", "--max-gap", "1M").receipt
        size = new.end - new.start
        if registry.accounts.sent_twice():
            assert receipt["bytes"]["wasted"] >= size
            assert registry.accounts.sent_twice(layer.digest) == size, (
                "the chunk and nothing else comes again"
            )
        assert_right(home, registry, "v2")
        assert receipt["bytes"]["fetched"] == registry.accounts.body_bytes
    assert receipt["bytes"]["wasted"] == pytest.approx(size, abs=100)


@pytest.mark.parametrize("is_update", [True, False], ids=["update", "cold"])
def test_a_chunk_that_comes_damaged_twice_ends_the_pull_and_the_next_one_needs_only_it(
    is_update: bool, cache: Path, tmp_path: Path
) -> None:
    layer = versions()["v2"].layers[0]
    new = next(c for c in layer.chunks if c.file.startswith("usr/share/3/"))
    home = with_v1(tmp_path, cache) if is_update else tmp_path
    rule = on("blob", flip(new.start + 100), when=lambda request: request.digest == layer.digest)
    with Registry(versions(), faults=[rule]) as registry:
        # One connection: what others were sending when the pull ends would come again too.
        ended = run(home, registry, "v2", "-j", "1", check=6)
        assert layer.digest in ended.error
        assert "twice" in ended.error
        assert registry.accounts.sent_twice(layer.digest) == new.end - new.start
        assert ended.receipt["error"]
        before = registry.accounts.bytes_by_blob[layer.digest]
    with Registry(versions()) as registry:
        run(home, registry, "v2")
        after = registry.accounts.bytes_by_blob.get(layer.digest, [])
        again = covered(before) + covered(after) - covered([*before, *after])
        assert again == new.end - new.start
        assert_right(home, registry, "v2")


def test_a_gzip_layer_that_comes_damaged_once_comes_once_more(tmp_path: Path) -> None:
    gzip = gzip_of(V2)
    rule = on("blob", flip(5000), times=1, when=lambda request: request.digest == gzip)
    with Registry(versions(), faults=[rule]) as registry:
        receipt = run(tmp_path, registry, "v2", "-j", "1").receipt
        assert (
            registry.accounts.sent_twice(gzip) == receipt["bytes"]["wasted"] == len(V2.blobs[gzip])
        )
        assert receipt["bytes"]["fetched"] == registry.accounts.body_bytes
        assert_right(tmp_path, registry, "v2")


def test_a_gzip_layer_that_comes_damaged_twice_ends_the_pull(tmp_path: Path) -> None:
    gzip = gzip_of(V2)
    rule = on("blob", flip(5000), when=lambda request: request.digest == gzip)
    with Registry(versions(), faults=[rule]) as registry:
        ended = run(tmp_path, registry, "v2", check=6)
        assert "damaged twice" in ended.error
        assert registry.accounts.sent_twice(gzip) == len(V2.blobs[gzip])


@pytest.mark.parametrize("kind", ["config", "toc", "manifest"])
def test_other_things_may_come_damaged_once_but_not_twice(kind: str, tmp_path: Path) -> None:
    layer = V2.layers[0]
    assert layer.toc_at
    where = {"config": 20, "toc": layer.toc_at.offset + 9, "manifest": 3}[kind]
    fault = flip(where) if kind != "manifest" else replaced(b'{"schemaVersion": 2, "lay')
    with Registry(versions(), faults=[on(kind, fault, times=1)]) as registry:  # type: ignore[arg-type]
        receipt = run(tmp_path, registry, "v2", "-j", "1").receipt
        assert receipt["bytes"]["wasted"] > 0
        assert receipt["bytes"]["fetched"] == registry.accounts.body_bytes
        assert_right(tmp_path, registry, "v2")
    with Registry(versions(), faults=[on(kind, fault)]) as registry:  # type: ignore[arg-type]
        run(tmp_path / "other", registry, "v2", check=7 if kind == "manifest" else 6)


def test_a_layer_of_another_size_than_listed_is_no_fault_of_the_network(
    tmp_path: Path, cache: Path
) -> None:
    home = with_v1(tmp_path, cache)
    with Registry(versions(), faults=[on("toc", wrong_total(7))]) as registry:
        ended = run(home, registry, "v2", "-j", "1", check=6)
        assert "bytes of it, its descriptor promises" in ended.error
        assert "resume" not in ended.error
        assert sum(request.kind == "toc" for request in registry.accounts.requests) == 3
