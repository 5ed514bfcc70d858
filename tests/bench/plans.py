"""A plan against a store of many images of 30,000 files each: `python -m tests.bench.plans`.

The images are tables of contents as a writer makes them, behind payloads that are holes of sparse
files; each has most of its files from the one before it. The one that is planned takes each file
from any of them, or from none.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.clients import Zpull
from tests.bench.measure import Cost, run
from tests.helpers.build.images import Layout
from tests.helpers.servers.registry import Registry
from zchunked.formats.annotations import Part, written_annotations
from zchunked.formats.tars.tar_reader import Member
from zchunked.formats.writing.toc_writer import Chunk, TocWriter
from zchunked.layers.index_frames import index_blobs, unindexed
from zchunked.limits import DEFAULT_LIMITS
from zchunked.oci.digest import Digest, digest_of
from zchunked.ranges import ByteRange
from zchunked.store import Store

_FILES = 30_000
_CHANGED = 0.1  # of the files, from image to image
_NEW = 0.05  # of the files of the image that is planned
_HEADER_BYTES = 78
_MTIME = 1_700_000_000_000_000_000
_KIND = "application/vnd.oci.image."
_TABLES = ("chunks", "headers")


@dataclass(frozen=True, slots=True)
class File:
    """One file of an image: another `version` is another content."""

    number: int
    version: int

    def content(self) -> tuple[int, int, str]:
        """Size, compressed size, digest."""
        digest = digest_of(b"%d %d" % (self.number, self.version))
        size = int(digest[7:11], 16) // 8 + 1
        return size, size // 3 + 20, digest


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer as a manifest lists it, and its tail: all of it but holes."""

    digest: Digest
    size: int
    annotations: Mapping[str, str]
    tail: bytes

    def descriptor(self) -> dict[str, object]:
        return {
            "mediaType": _KIND + "layer.v1.tar+zstd",
            "digest": self.digest,
            "size": self.size,
            "annotations": dict(self.annotations),
        }


def blob_of(files: list[File]) -> Blob:
    """A layer of these files."""
    writer, at = TocWriter(DEFAULT_LIMITS.toc_bytes), 0
    for file in files:
        size, length, digest = file.content()
        name = b"srv/app/part-%d/file_%d.txt" % (file.number % 50, file.number)
        at += _HEADER_BYTES
        writer.member(_member(name, size), [Chunk(at, size, False, digest)], at + length, digest)
        at += length
    at += _HEADER_BYTES  # the end of the archive
    toc = writer.finish(b"none")
    part = Part(ByteRange(at + 8, at + 8 + len(toc)), writer.text.decoded_bytes)
    split = Part(ByteRange(part.span.end + 8, part.span.end + 12), 4)
    annotations = written_annotations(part, digest_of(toc), split)
    tail = bytes(8) + toc + bytes(8) + b"none" + bytes(72)
    return Blob(digest_of(toc + b"blob"), at + len(tail), annotations, tail)


def _member(name: bytes, size: int) -> Member:
    return Member(
        header=b"",
        name=name,
        kind="reg",
        link_name=b"",
        mode=0o644,
        size=size,
        uid=0,
        gid=0,
        mtime=_MTIME,
        atime=None,
        ctime=None,
        dev_major=0,
        dev_minor=0,
        xattrs={},
    )


def build(folder: Path, count: int, *, is_indexed: bool, size: int = _FILES) -> list[File]:
    """A store of so many images of `size` files; returns those of the image that comes next.

    `is_indexed`: later pulls have recorded their frames, which they do beside slow downloads.
    """
    dice = random.Random(1)
    files = [File(number, 0) for number in range(size)]
    versions = [[0] for _ in files]
    with Store(folder) as store:
        for image in range(count):
            changed = dice.sample(range(size), int(size * _CHANGED)) if image else ()
            for number in changed:
                files[number] = File(number, image)
                versions[number].append(image)
            _store(store, folder, image, blob_of(files))
            if is_indexed:
                index_blobs(store, unindexed(store, DEFAULT_LIMITS), DEFAULT_LIMITS)
    return [
        File(number, count if dice.random() < _NEW else dice.choice(its))
        for number, its in enumerate(versions)
    ]


def _store(store: Store, folder: Path, number: int, blob: Blob) -> None:
    name = f"{number:012x}-1"
    with (folder / "blobs" / name).open("wb") as file:
        file.truncate(blob.size - len(blob.tail))
        file.seek(0, 2)
        file.write(blob.tail)
    store.share_extents(blob.digest, blob.size, [(0, blob.size, name, 0)])
    config, document = _documents(blob, number)
    store.put(config)
    manifest = store.put(document)
    store.frames.set_unindexed([blob.digest], manifest)
    store.set_whole(blob.digest, blob.size)
    store.set_image(f"registry.example/app:v{number}", "linux/amd64", manifest, manifest)


def _documents(blob: Blob, number: int) -> tuple[bytes, bytes]:
    """Config and manifest."""
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{number:064x}"]}
    config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": rootfs}).encode()
    described = {
        "mediaType": _KIND + "config.v1+json",
        "digest": digest_of(config),
        "size": len(config),
    }
    document = {
        "schemaVersion": 2,
        "mediaType": _KIND + "manifest.v1+json",
        "config": described,
        "layers": [blob.descriptor()],
    }
    return config, json.dumps(document).encode()


def served(blob: Blob) -> Layout:
    """What a registry has: the one image."""
    config, document = _documents(blob, -1 & 0xFFFF)
    digest = digest_of(document)
    data = bytes(blob.size - len(blob.tail)) + blob.tail
    return Layout(
        {"next": digest},
        {digest: (_KIND + "manifest.v1+json", document)},
        {digest_of(config): config, blob.digest: data},
    )


@contextmanager
def serving(files: list[File]) -> Iterator[str]:
    """The host of a registry that has the image of these files, as `app:next`."""
    with Registry(served(blob_of(files)), repository="app") as registry:
        yield registry.host


def measured(folder: Path, count: int, *, is_indexed: bool, repeats: int = 3) -> Iterator[Cost]:
    """Plans of the next image, one after the other, and nothing between them."""
    client, home = Zpull(Path(__file__).parents[2]), folder / "home"
    with serving(build(home / "store", count, is_indexed=is_indexed)) as host:
        for _ in range(repeats):
            yield run(client.plan(home, host, "app", "next"), folder / "said")


def bytes_per_frame(store: Path) -> float:
    """Of the index, all of it, for each frame that it tells from others."""
    with closing(sqlite3.connect(store / "index.sqlite")) as db:
        rows = sum(db.execute(f"SELECT count(*) FROM {one}").fetchone()[0] for one in _TABLES)
    size: int = (store / "index.sqlite").stat().st_size
    return size / max(int(rows), 1)


def table(folder: Path, count: int) -> Iterator[str]:
    """Markdown."""
    yield f"{count} images of {_FILES:,} files each; what is planned shares files with all."
    yield ""
    yield "| frames of stored images | wall, s | CPU, s | peak, MiB | target |"
    yield "|---|--:|--:|--:|--:|"
    for what, is_indexed in (("in the index", True), ("in tables that nobody has read", False)):
        home = folder / ("rows" if is_indexed else "tables")
        costs = list(measured(home, count, is_indexed=is_indexed))
        failed = [cost.failed for cost in costs if cost.failed]
        least = min(costs, key=lambda cost: cost.wall)
        yield (
            f"| {what} | {least.wall:.2f} | {least.cpu:.2f} | {least.peak >> 20} | ≤ 1 s |"
            if not failed
            else f"| {what} | {failed[0]} | | | |"
        )
    yield ""
    size = bytes_per_frame(folder / "rows" / "home" / "store")
    yield f"The index has {size:.0f} bytes for each frame of content; target ≤ 150."


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.plans")
    parser.add_argument("--images", type=int, default=100)
    count = parser.parse_args().images
    with tempfile.TemporaryDirectory(prefix="zpull-plans-") as name:
        for line in table(Path(name), count):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
