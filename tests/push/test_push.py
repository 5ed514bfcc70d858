"""Pushes to a registry that is strict, lies, and loses bytes, sessions and connections."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.servers.uploads import RULES, UploadRegistry
from zchunked.download.session import Session
from zchunked.errors import AccessDeniedError, TransferError
from zchunked.events import Event
from zchunked.export.shipment import Parcel, Shipment
from zchunked.oci.digest import digest_of
from zchunked.oci.documents import OCI_CONFIG, OCI_MANIFEST, Descriptor
from zchunked.oci.reference import Reference, parse_reference
from zchunked.options import Patience, StallLimits
from zchunked.push.push import Pusher
from zchunked.sources.connect import open_uploads
from zchunked.sources.network import Network
from zchunked.sources.traffic import Traffic
from zchunked.store import Store

MiB = 1 << 20


def parcel(data: bytes, media_type: str = "application/vnd.oci.image.layer.v1.tar+zstd") -> Parcel:
    def pieces(at: int) -> Iterator[bytes]:
        for start in range(at, len(data), 300_000):
            yield data[start : start + 300_000]

    return Parcel(Descriptor(media_type, digest_of(data), len(data)), pieces)


def shipment(*sizes: int, seed: int = 1) -> Shipment:
    """An image with layers of these sizes."""
    import json  # noqa: PLC0415

    from zchunked.convert.image import listed  # noqa: PLC0415

    rng = random.Random(seed)
    layers = [parcel(rng.randbytes(size)) for size in sizes]
    config = parcel(b'{"architecture":"amd64","os":"linux"}', OCI_CONFIG)
    document = {
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": listed(config.blob),
        "layers": [listed(layer.blob) for layer in layers],
    }  # fmt: skip
    data = json.dumps(document).encode()
    manifest = Descriptor(OCI_MANIFEST, digest_of(data), len(data))
    return Shipment([*layers, config], [(manifest, data)], None)


class Push:
    """One push to a registry, and what came of it."""

    def __init__(
        self, registry: UploadRegistry, store: Store, to: str = "team/app:v1", **options: Any
    ) -> None:
        reference = parse_reference(f"{registry.host}/{to}")
        assert isinstance(reference, Reference)
        self.reference, self.registry = reference, registry
        self.events: list[Event] = []
        self.traffic = Traffic(time.monotonic)
        patience = options.pop("patience", 20.0)
        mount_from = options.pop("mount_from", ())
        uploads = open_uploads(reference, Network(self.traffic, **options), mount_from)
        self.closing = closing(uploads)
        session = Session(
            Traffic(time.monotonic),
            jobs=2,
            patience=Patience(patience),
            stall_limits=StallLimits(),
            show=self.events.append,
        )
        self.pusher = Pusher(uploads, store.hints, session, mount_from)

    def run(self, image: Shipment) -> Push:
        with self.closing:
            self.pusher.run(image, self.reference.tag)
        return self

    def check(self, image: Shipment) -> None:
        """All is there, and no rule was broken on the way."""
        name, registry = self.reference.repository, self.registry
        for one in image.parcels:
            assert registry.blob(name, one.blob.digest) == b"".join(one.pieces(0))
        for manifest, data in image.documents:
            assert registry.manifests[name][self.reference.tag or manifest.digest] == data
        assert registry.broken == []


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as found:
        yield found


IMAGE = shipment(5 * MiB, 70_000, 0)


def test_an_image_arrives_and_is_not_sent_again(store: Store) -> None:
    with UploadRegistry() as registry:
        push = Push(registry, store).run(IMAGE)
        push.check(IMAGE)
        total = sum(one.blob.size for one in IMAGE.parcels)
        assert (push.pusher.pushed.sent, push.pusher.pushed.sent_twice) == (total, 0), push.events
        assert registry.received == total
        again = Push(registry, store, "team/app:v2").run(IMAGE)
        again.check(IMAGE)
        assert (again.pusher.pushed.sent, again.pusher.pushed.skipped) == (0, len(IMAGE.parcels))
        assert registry.received == total


def test_bytes_go_where_the_registry_says_and_credentials_do_not(store: Store) -> None:
    with UploadRegistry(elsewhere=True, needs_login=True) as registry:
        Push(registry, store, credentials=("me", "secret")).run(IMAGE).check(IMAGE)


def test_tokens_are_asked_for_once_and_for_all_that_is_to_be_done(store: Store) -> None:
    with UploadRegistry(needs_login=True) as registry:
        registry.blobs["team/base"] = {}
        Push(registry, store, mount_from=("team/base",)).run(IMAGE).check(IMAGE)
        assert registry.tokens_seen == {
            "repository:team/app:pull,push",
            "repository:team/base:pull",
        } or {"repository:team/app:pull,push"} <= {*registry.tokens_seen}


def test_blobs_of_another_repository_are_mounted(store: Store) -> None:
    with UploadRegistry() as registry:
        big = IMAGE.parcels[0]
        registry.blobs["team/base"] = {big.blob.digest: b"".join(big.pieces(0))}
        push = Push(registry, store, mount_from=("nobody/knows", "team/base")).run(IMAGE)
        push.check(IMAGE)
        assert push.pusher.pushed.mounted == 1
        assert registry.received < MiB
    with UploadRegistry(mounts=False) as registry:
        registry.blobs["team/base"] = {big.blob.digest: b"".join(big.pieces(0))}
        push = Push(registry, store, mount_from=("team/base",)).run(IMAGE)
        push.check(IMAGE)
        assert push.pusher.pushed.mounted == 0


@pytest.mark.parametrize("keeps_partial", [True, False])
def test_a_link_that_resets_costs_little(keeps_partial: bool, store: Store) -> None:
    image = shipment(60 * MiB)
    with UploadRegistry(cut_every=5 * MiB, keeps_partial=keeps_partial) as registry:
        push = Push(registry, store).run(image)
        push.check(image)
        assert registry.received <= 1.03 * 60 * MiB
        assert push.pusher.retries >= 11


def test_an_end_whose_answer_is_lost_is_not_sent_again(store: Store) -> None:
    with UploadRegistry(fail_puts=2) as registry:
        push = Push(registry, store).run(IMAGE)
        push.check(IMAGE)
        assert registry.received == sum(one.blob.size for one in IMAGE.parcels)


def test_a_registry_that_does_not_say_what_it_has_is_believed_when_all_went_well(
    store: Store,
) -> None:
    with UploadRegistry(tells_offset=False) as registry:
        Push(registry, store).run(IMAGE).check(IMAGE)


@pytest.mark.parametrize("forgets", ["lose_sessions", "lose_chunks", "lose_ends"])
def test_sessions_that_are_forgotten_are_begun_again(forgets: str, store: Store) -> None:
    with UploadRegistry(cut_every=3 * MiB) as registry:
        setattr(registry, forgets, 1)
        Push(registry, store).run(IMAGE).check(IMAGE)
        assert getattr(registry, forgets) == 0


@pytest.mark.parametrize("forgets", ["lose_sessions", "lose_chunks", "lose_ends"])
def test_a_registry_that_forgets_every_session_is_given_up(forgets: str, store: Store) -> None:
    with UploadRegistry(cut_every=3 * MiB) as registry:
        setattr(registry, forgets, 10**6)
        with pytest.raises(TransferError, match=r"came to nothing|in vain|gave up"):
            Push(registry, store, patience=1.0).run(shipment(5 * MiB))
        assert registry.broken == []


@pytest.mark.parametrize(
    "where",
    [
        {"relative": True},
        {"has_query": False},
        {"has_query": False, "relative": True},
        {"has_query": False, "elsewhere": True},
    ],
)
def test_locations_of_every_shape_are_followed(where: dict[str, Any], store: Store) -> None:
    with UploadRegistry(cut_every=3 * MiB, **where) as registry:
        Push(registry, store).run(IMAGE).check(IMAGE)
        assert registry.hits["GET upload"] or registry.hits["PATCH upload"]


def test_a_chunk_whose_answer_is_lost_is_not_sent_again(store: Store) -> None:
    with UploadRegistry(lose_answers=2) as registry:
        Push(registry, store).run(IMAGE).check(IMAGE)
        assert registry.received == sum(one.blob.size for one in IMAGE.parcels)


@pytest.mark.parametrize("skips", [1, 3, 10**6])
def test_after_a_416_the_offset_is_asked_for(skips: int, store: Store) -> None:
    """One that never takes a chunk gets the blob in one piece."""
    with UploadRegistry(skips=skips) as registry:
        Push(registry, store).run(IMAGE).check(IMAGE)


def test_a_registry_that_keeps_another_manifest_is_an_error(store: Store) -> None:
    with UploadRegistry(renames=True) as registry, pytest.raises(TransferError, match="keeps"):
        Push(registry, store).run(IMAGE)


def test_the_tag_comes_last(store: Store) -> None:
    with UploadRegistry() as registry:
        Push(registry, store).run(IMAGE)
        assert registry.puts[-1] == "v1"
        assert sorted(registry.puts[:-1]) == sorted(one.blob.digest for one in IMAGE.parcels)


def test_the_server_names_each_rule_that_is_broken() -> None:
    """What it would let pass, no other test could see."""
    import http.client  # noqa: PLC0415

    with UploadRegistry(least_chunk=10) as registry:
        line = http.client.HTTPConnection(registry.host)

        def ask(method: str, url: str, body: bytes | None = None, **headers: str) -> str:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            line.request(method, url, body, named)
            answer = line.getresponse()
            answer.read()
            return answer.headers.get("Location", "")

        octets = "application/octet-stream"
        at = ask("POST", "/v2/a/blobs/uploads/", b"x")
        line.close()
        ask("PATCH", at, b"hello", Content_Type="text/plain", Content_Range="0-4")
        line.close()
        ask("PATCH", at, b"hello", Content_Type=octets, Content_Range="7-11")
        newer = ask("PATCH", at, b"hello", Content_Type=octets, Content_Range="0-4")
        newer = ask("PATCH", newer, b"hello", Content_Type=octets, Content_Range="5-10")
        line.close()
        ask("PATCH", at, b"hello", Content_Type=octets, Content_Range="5-9")
        ask("PUT", at.partition("?")[0], b"hello")
        manifest = (
            b'{"mediaType":"x/y","config":{"digest":"sha256:1"},"manifests":[{"digest":"2"}]}'
        )
        ask("PUT", "/v2/a/manifests/sha256:00", manifest, Content_Type="text/plain")
        ask("PUT", "/v2/a/manifests/.v1", b'{"mediaType":"x/y"}', Content_Type="x/y")
        index = b'{"mediaType":"x/y","manifests":[{"digest":"2"}]}'
        ask("PUT", "/v2/a/manifests/sha256-00", index, Content_Type="x/y")
        line.close()
        elsewhere = {"host", "credentials", "strangers"}
        assert set(registry.broken) == RULES.keys() - elsewhere
    with UploadRegistry(elsewhere=True) as registry:
        line = http.client.HTTPConnection(registry.host)
        at = ask("POST", "/v2/a/blobs/uploads/", b"")
        ask("GET", "/v2/a/blobs/uploads/" + at.rpartition("/")[2])
        line.close()
        line = http.client.HTTPConnection(at.split("/")[2])
        ask("HEAD", "/v2/a/blobs/sha256:00", Authorization="Basic x")
        line.close()
        assert set(registry.broken) == elsewhere


@pytest.mark.parametrize(
    "lie", [lambda at: at + 999_999_999, lambda _: 0, lambda at: max(at - 100_000, 0)]
)
@pytest.mark.parametrize("to", ["lies_left", "lies_to_chunks"])
def test_lies_about_offsets_end_in_the_right_bytes(lie: Any, to: str, store: Store) -> None:
    with UploadRegistry(cut_every=3 * MiB) as registry:
        registry.lie = lie
        setattr(registry, to, 2)
        Push(registry, store).run(IMAGE).check(IMAGE)


@pytest.mark.parametrize("status", [404, 405, 400, 415, 501])
def test_where_chunks_are_refused_blobs_go_in_one_piece(status: int, store: Store) -> None:
    with UploadRegistry(refuses_chunks=status) as registry:
        if status == 404:
            with pytest.raises(TransferError, match=r"came to nothing|gave up"):
                Push(registry, store, patience=1.0).run(IMAGE)
            return
        Push(registry, store).run(IMAGE).check(IMAGE)


def test_chunks_get_shorter_until_they_are_taken(store: Store) -> None:
    with UploadRegistry(longest_chunk=300_000) as registry:
        Push(registry, store).run(IMAGE).check(IMAGE)


def test_chunks_are_as_long_as_the_registry_wants_them(store: Store) -> None:
    with UploadRegistry(least_chunk=2 * MiB, cut_every=5 * MiB, keeps_partial=False) as registry:
        Push(registry, store).run(IMAGE).check(IMAGE)
        assert registry.hits["PATCH upload"] <= 6


def test_bytes_that_arrive_wrong_are_sent_again_but_not_for_ever(store: Store) -> None:
    with UploadRegistry(mangles=1) as registry:
        Push(registry, store).run(IMAGE).check(IMAGE)
    with UploadRegistry(mangles=99) as registry, pytest.raises(TransferError, match="in vain"):
        Push(registry, store).run(IMAGE)


def test_what_a_killed_push_left_is_gone_on_with(store: Store) -> None:
    image = shipment(12 * MiB)
    with UploadRegistry(cut_every=5 * MiB) as registry:
        with pytest.raises(TransferError):
            Push(registry, store, patience=0.0).run(image)
        registry.cut_every = None
        before = registry.received
        assert before >= 4 * MiB
        push = Push(registry, store).run(image)
        push.check(image)
        assert registry.received - before < 9 * MiB
        assert push.pusher.pushed.resumed_bytes > 4 * MiB
        assert push.pusher.pushed.sent_twice == 0
        digest = image.parcels[0].blob.digest
        assert store.hints.recall_upload(f"{registry.host}/team/app", digest) is None


def test_a_session_of_long_ago_that_is_gone_is_no_obstacle(store: Store) -> None:
    with UploadRegistry() as registry:
        blob = IMAGE.parcels[0].blob.digest
        store.hints.remember_upload(
            f"{registry.host}/team/app", blob, f"http://{registry.host}/v2/team/app/blobs/uploads/x"
        )
        Push(registry, store).run(IMAGE).check(IMAGE)


def test_access_denied_is_final(store: Store) -> None:
    with UploadRegistry(needs_login=True) as registry:
        registry.denies = True
        with pytest.raises(AccessDeniedError):
            Push(registry, store).run(IMAGE)


def test_no_secret_of_a_location_is_told(store: Store) -> None:
    with UploadRegistry(cut_every=2 * MiB, mangles=99) as registry:
        push = Push(registry, store)
        with pytest.raises(TransferError) as failure:
            push.run(IMAGE)
    assert "of-this-upload" not in str(failure.value)
    assert "of-this-upload" not in "".join(map(str, push.events))
