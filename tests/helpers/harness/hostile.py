"""The bench for hostile images: a victim with editable parts, and what must hold after an attack.

`Bench.refused` and `Bench.whole` are the two ends an attack may come to: an error that leaves
nothing behind, or a layer taken whole and right all the same. Both hold the receipt against what
the source says it sent. `Bench.lies` is for what speaks of a layer without being its bytes: it is
refused where it is needed, and costs bytes where it is not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.helpers.build.front import (
    Entry,
    Image,
    Json,
    Layer,
    chunked_layer,
    every,
    image,
    make_tar,
)
from tests.helpers.harness.pulls import Outcome, open_store, pull
from tests.helpers.servers.memory import Break, MemorySource
from zchunked.errors import FormatError, IntegrityError, ZPullError
from zchunked.export.images.layers import layers_of
from zchunked.oci.digest import Digest
from zchunked.options import GapOptions
from zchunked.pull.planning.whole import NOTHING_STORED
from zchunked.ranges import ByteRange
from zchunked.receipt import Receipt
from zchunked.store import Store
from zchunked.store.images import StoredImage

STARTS = ["cold", "metered", "warm", "exact"]
"""Empty store; empty, and no unneeded byte; an older version, the lean way; and the exact way."""
IN_PARTS = ["metered", "warm"]
COLD_AND_WARM = ["cold", "warm"]
"""For what is seen before it is decided how a layer comes."""
INTEGRITY, MALFORMED = 6, 7
CHUNK = 16 << 10


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


SHARED = noise(60_000, 1)
OLD = b"older than all else\n"
SECRET = b"nobody may see this\n"
CONTENT = {
    "bin/app": noise(60_000, 2),
    "etc/app.conf": SECRET,
    "var/hole": noise(1000, 3) + bytes(4096) + noise(900, 4),
}

BAD_DIGESTS = {
    "path traversal": "sha256:../../../../../../tmp/zpull-was-here",
    "absolute path": "/tmp/zpull-was-here",
    "upper case": "sha256:" + "A" * 64,
    "another algorithm": "sha512:" + "a" * 128,
    "md5": "md5:" + "a" * 32,
    "short": "sha256:" + "a" * 63,
    "line end": "sha256:" + "a" * 64 + "\n",
    "digits of another script": "sha256:" + "٣" * 64,
    "empty": "",
    "nul": "sha256:" + "a" * 63 + "\0",
    "escape sequences": "\x1b]0;owned\x07sha256:" + "a" * 64,
}


@cache
def old_image() -> Image:
    """The version before: of the victim's files it has `shared` alone."""
    files = {"shared": SHARED, "etc/old.conf": OLD}
    return image([chunked_layer(make_tar(files), cut=every(CHUNK))])


@cache
def victim_tar() -> bytes:
    return make_tar([
        Entry("etc/", type="dir", mode=0o755),
        Entry("etc/app.conf", CONTENT["etc/app.conf"]),
        Entry("bin/app", CONTENT["bin/app"], mode=0o755),
        Entry("shared", SHARED),
        Entry("var/hole", CONTENT["var/hole"]),
        Entry("var/empty"),
        Entry("lib", type="symlink", linkname="usr/lib"),
        Entry("etc/copy.conf", CONTENT["etc/app.conf"]),
        Entry("hard", type="hardlink", linkname="bin/app"),
    ])  # fmt: skip


def victim(**hooks: Any) -> Layer:
    """A layer of several chunks, a hole, an empty file, links and the same content twice."""
    return chunked_layer(victim_tar(), **({"cut": every(CHUNK)} | hooks))


@cache
def honest() -> Image:
    return image([victim()])


# ── edits ──

Edit = Callable[[Json], None]


def entry_of(toc: Json, name: str, chunk: int = 0) -> Json:
    """Chunk 0 is the file's main entry."""
    found: list[Json] = [one for one in toc["entries"] if one["name"] == name]
    return found[chunk]


def sets(name: str, chunk: int = 0, /, **values: object) -> Edit:
    """An `edit_toc` that gives an entry's keys other values; `...` takes the key away."""

    def edit(toc: Json) -> None:
        entry = entry_of(toc, name, chunk)
        entry.update(values)
        for key in [key for key, value in values.items() if value is ...]:
            del entry[key]

    return edit


def moves(name: str, chunk: int = 0, /, **steps: int) -> Edit:
    """An `edit_toc` that adds to an entry's numbers."""

    def edit(toc: Json) -> None:
        entry = entry_of(toc, name, chunk)
        for key, step in steps.items():
            entry[key] = entry.get(key, 0) + step

    return edit


def lies_at(name: str, other: str, /, **values: object) -> Edit:
    """An `edit_toc` that gives a file the range of another one."""

    def edit(toc: Json) -> None:
        there = entry_of(toc, other)
        entry_of(toc, name).update(
            {"offset": there["offset"], "endOffset": there["endOffset"]} | values
        )

    return edit


def both(*edits: Edit) -> Edit:
    def edit(toc: Json) -> None:
        for one in edits:
            one(toc)

    return edit


def flipped(data: bytes, at: int = -1) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 0x40
    return bytes(changed)


# ── the bench ──


@dataclass
class Bench:
    """One store, and what was pulled into it. `last` is the source of the last pull."""

    folder: Path
    store: Store
    start: str
    last: MemorySource | None = None

    @property
    def _options(self) -> dict[str, Any]:
        ways = {"metered": GapOptions(max_gap=0), "warm": GapOptions(lean=True)}
        return {"jobs": 2, "gaps": ways.get(self.start, GapOptions())}

    def pull(self, content: Image, name: str = "example.com/app:t", **options: Any) -> Outcome:
        """A pull that raises what it raises, with a receipt that adds up in any case."""
        made = {
            key: options.pop(key)
            for key in ("change", "ranges", "spans", "piece")
            if key in options
        }
        source = self.last = MemorySource(content, **made)
        return self.pull_from(source, name, **options)

    def pull_from(
        self, source: MemorySource, name: str = "example.com/app:t", **options: Any
    ) -> Outcome:
        self.last = source
        outcome = Outcome(Receipt(name))
        try:
            return pull(source, self.store, name, outcome=outcome, **(self._options | options))
        finally:
            adds_up(outcome.receipt, source)

    def refused(self, content: Image, exit_code: int, words: str = "", **options: Any) -> str:
        """The attack fails with one clear line, which is returned, and leaves nothing behind."""
        with pytest.raises(
            {INTEGRITY: IntegrityError, MALFORMED: FormatError}[exit_code]
        ) as caught:
            self.pull(content, **options)
        message = str(caught.value)
        assert caught.value.exit_code == exit_code
        is_clear_line(message)
        assert words in message
        self.has_nothing_of(content)
        return message

    def lies(self, content: Image, exit_code: int, words: str = "", **options: Any) -> str | None:
        """Refused, or not needed in an ordinary pull: then all layers are the registry's blobs."""
        if self.start in ("metered", "warm"):
            return self.refused(content, exit_code, words, **options)
        refusal: ZPullError | None = None
        try:
            self.is_identical(self.pull(content, **options), content)
        except (IntegrityError, FormatError) as error:
            refusal = error
        if refusal is not None:
            assert self.start == "exact", (
                "without anything to compare with nobody reads a table of contents"
            )
            assert refusal.exit_code == exit_code
            is_clear_line(str(refusal))
            self.has_nothing_of(content)
        return None

    def lies_for_good(
        self, content: Image, exit_code: int, words: str = "", **options: Any
    ) -> str | None:
        """As `refused_for_good`."""
        if self.start in ("metered", "warm"):
            return self.refused_for_good(content, exit_code, words, **options)
        self.lies(content, exit_code, words, **options)
        self.reopen()
        self.is_right(self.pull(honest(), "example.com/honest:t"), honest())
        return None

    def is_identical(self, outcome: Outcome, content: Image) -> None:
        """All blobs are the registry's, no byte was sent twice, no wrong tar is exported."""
        for layer in content.layers:
            digest = Digest(layer.digest)
            assert self.store.is_whole(digest)
            assert b"".join(self.store.stream(digest, ByteRange(0, layer.size))) == layer.blob
        for entry, layer in zip(outcome.receipt.layers, content.layers, strict=True):
            assert entry.fetched_bytes <= layer.size + (1 << 10)
        assert outcome.image is not None
        for stored, layer in zip(layers_of(self.store, outcome.image), content.layers, strict=True):
            try:
                assert b"".join(stored.tar()) == layer.tar
            except (IntegrityError, FormatError) as error:
                is_clear_line(str(error))

    def refused_for_good(
        self, content: Image, exit_code: int, words: str = "", **options: Any
    ) -> str:
        """It is refused a second time, in the next process too; honest images stay right."""
        message = self.refused(content, exit_code, words, **options)
        self.reopen()
        assert self.refused(content, exit_code, words, **options) == message
        self.reopen()
        if self.start in ("warm", "exact"):
            again = self.pull(old_image(), "example.com/old:t")
            # all of it is still here
            assert again.receipt.bytes.needed == again.receipt.bytes.gap == 0
            self.is_right(again, old_image())
        self.is_right(self.pull(honest()), honest())
        return message

    def whole(self, content: Image, words: str, **options: Any) -> Outcome:
        """Every layer comes whole, for a reason, with no byte asked twice; and is right."""
        outcome = self.pull(content, **options)
        self.is_right(outcome, content)
        for entry, layer in zip(outcome.receipt.layers, content.layers, strict=True):
            assert entry.mode == "whole"
            assert words in (entry.reason or "") or (
                self.start == "cold" and entry.reason == NOTHING_STORED
            )
            is_clear_line(entry.reason or "")
            assert entry.fetched_bytes == layer.size
            assert self.store.is_whole(Digest(layer.digest))
        assert outcome.receipt.bytes.wasted == 0
        return outcome

    def partial(self, content: Image, name: str = "example.com/app:t", **options: Any) -> Outcome:
        """Comes in parts and is right, so whatever was odd about it does not matter."""
        outcome = self.pull(content, name, **options)
        assert [entry.mode for entry in outcome.receipt.layers] == ["partial"] * len(content.layers)
        self.is_right(outcome, content)
        return outcome

    def is_right(self, outcome: Outcome, content: Image) -> None:
        assert outcome.image is not None
        tars_are_right(self.store, outcome.image, content)

    def has_nothing_of(self, content: Image) -> None:
        """No image, no proof, no file anywhere but in the store."""
        assert not [found for found in self.store.images() if found.manifest == content.digest]
        for layer in content.layers:
            assert self.store.proof(Digest(layer.digest), Digest(layer.diff_id)) is None
            assert not self.store.is_whole(Digest(layer.digest))
        assert [path.name for path in self.folder.iterdir()] == ["store"]
        kinds = {"blobs", "pins", "claims", "index.sqlite", "index.sqlite-wal", "index.sqlite-shm"}
        assert {path.name for path in self.store.folder.iterdir()} <= kinds
        assert all(path.is_file() for path in (self.store.folder / "blobs").iterdir())

    def reopen(self) -> None:
        """As the next process sees it."""
        self.store.close()
        self.store = open_store(self.folder)


@cache
def _warm_store() -> dict[str, bytes]:
    """The files of a store into which the old image was pulled."""
    with TemporaryDirectory() as folder:
        found = Bench(Path(folder), open_store(Path(folder)), "warm")
        found.is_right(found.pull(old_image(), "example.com/old:t"), old_image())
        found.store.close()
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in Path(folder).rglob("*")
            if path.is_file()
        }


@contextmanager
def bench(folder: Path, start: str) -> Iterator[Bench]:
    for name, data in (_warm_store() if start in ("warm", "exact") else {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    found = Bench(folder, open_store(folder), start)
    try:
        yield found
    finally:
        found.store.close()


def adds_up(receipt: Receipt, source: MemorySource) -> None:
    """Every byte the source sent is in exactly one column."""
    spent = receipt.bytes
    assert spent.fetched == source.traffic.fetched
    assert spent.fetched == spent.needed + spent.metadata + spent.gap + spent.wasted, spent
    assert min(spent.needed, spent.metadata, spent.gap, spent.wasted, spent.cached) >= 0, spent
    assert receipt.requests == source.traffic.requests
    assert sum(entry.fetched_bytes for entry in receipt.layers) <= spent.fetched
    assert all(
        entry.fetched_bytes >= 0 and 0 <= entry.cached_bytes <= entry.size
        for entry in receipt.layers
    )


def tars_are_right(store: Store, stored: StoredImage, content: Image) -> None:
    tars = [b"".join(layer.tar()) for layer in layers_of(store, stored)]
    assert tars == [layer.tar for layer in content.layers]


def is_clear_line(text: str) -> None:
    assert text.isprintable(), repr(text)
    assert 10 < len(text) < 600


def flips(digest: str, where: range, *, times: int = 1 << 30) -> Break:
    """Turn one bit of each piece with a byte of `where`, in the first `times` such pieces."""
    left = [times]

    def change(blob: Any, at: int, piece: bytes) -> bytes:
        hit = range(max(at, where.start), min(at + len(piece), where.stop))
        if blob.digest != digest or not hit or not left[0]:
            return piece
        left[0] -= 1
        return flipped(piece, hit[0] - at)

    return change
