"""CPU seconds to look after a large store: `python -m tests.bench.stores [--images 100]`.

The store is made of rows and sparse files, so it takes half a minute and little of the disk: each
image has three layers of 3,000 extents, two of three in files of the images before it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from zchunked.maintenance.gc import collect
from zchunked.maintenance.status import status
from zchunked.maintenance.usage import usage
from zchunked.maintenance.verify import verify
from zchunked.oci.digest import Digest, digest_of
from zchunked.options import GcOptions
from zchunked.store import Store

_FILE_BYTES = 100 << 20
_LAYERS, _EXTENTS = 3, 3000
_TARGETS = {
    "images": 0.3,
    "status": 0.3,
    "gc --dry-run": 10.0,
    "gc --keep-last 50": 10.0,
    "find 30,000 frames": 1.0,
}
"""Seconds."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.stores")
    parser.add_argument("--images", type=int, default=100)
    count = parser.parse_args().images
    with tempfile.TemporaryDirectory(prefix="zpull-stores-") as name:
        print("\n".join(table(Path(name), count)))
    return 0


def table(folder: Path, count: int) -> Iterator[str]:
    """Markdown."""
    build(folder, count)
    size = (folder / "index.sqlite").stat().st_size
    extents, frames = count * _LAYERS * _EXTENTS, count * _LAYERS * _EXTENTS // 3
    yield (
        f"{count} images, {count * _FILE_BYTES >> 30} GiB in files, {extents:,} extents, "
        f"{frames:,} frames."
    )
    yield ""
    yield "| | CPU seconds | target |"
    yield "|---|--:|--:|"
    for name, work in tasks(folder, count).items():
        yield f"| {name} | {spent(work):.2f} | ≤ {_TARGETS[name]:g} |"
    yield f"| index, bytes for each extent and frame | {size / (extents + frames):.0f} | ≤ 150 |"
    yield f"| verify, of the speed of SHA-256 | {verified_share(folder / 'other'):.2f} | ≥ 0.8 |"


def tasks(folder: Path, count: int) -> dict[str, Callable[[], object]]:
    def with_store(work: Callable[[Store], object]) -> None:
        with Store(folder, reads_only=True) as store:
            work(store)

    return {
        "images": lambda: with_store(usage),
        "status": lambda: with_store(status),
        "find 30,000 frames": lambda: find(folder, count),
        "gc --dry-run": lambda: collect(folder, GcOptions(is_dry=True)),
        "gc --keep-last 50": lambda: collect(folder, GcOptions(keep_last=50)),
    }


def verified_share(folder: Path, size: int = 256 << 20) -> float:
    """How much of the time that `verify` takes for one blob goes into hashing alone."""
    block = random.Random(1).randbytes(1 << 20)
    with Store(folder) as store:
        store.keep(block for _ in range(size >> 20))
        data = block * (size >> 20)
        alone = min(spent(lambda: hashlib.sha256(data)) for _ in range(3))
        return alone / min(spent(lambda: verify(store)) for _ in range(3))


def find(folder: Path, count: int) -> None:
    """Look all frames of a layer of 30,000 files up, as a plan does."""
    wanted = [
        _digest(number % count, number % _LAYERS, number // count % (_EXTENTS // 3) * 3)
        for number in range(30_000)
    ]
    with Store(folder) as store:
        assert len(store.find_chunks(wanted)) == len(set(wanted))


def _digest(number: int, layer: int, extent: int) -> bytes:
    return hashlib.sha256(f"{number} {layer} {extent}".encode()).digest()


def spent(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def build(folder: Path, count: int) -> None:
    """A store of so many images, each with frames of those before it."""
    dice = random.Random(1)
    with Store(folder) as store:
        files = [f"{number:012x}-1" for number in range(count)]
        for name in files:
            with (folder / "blobs" / name).open("wb") as file:
                file.truncate(_FILE_BYTES)
        for number in range(count):
            layers = [_layer(store, files, number, layer, dice) for layer in range(_LAYERS)]
            _image(store, number, layers)


def _layer(
    store: Store, files: list[str], number: int, layer: int, dice: random.Random
) -> tuple[Digest, int]:
    blob = digest_of(f"{number}-{layer}".encode())
    rows: list[tuple[int, int, str, int]] = []
    size = 0
    for extent in range(_EXTENTS):
        own = extent % 3 == 0
        length = dice.randint(2000, 20_000)
        file = files[number if own else max(0, number - dice.randint(1, 5))]
        rows.append((size, size + length, file, dice.randint(0, _FILE_BYTES - 20_000)))
        size += length
    store.share_extents(blob, size, rows)
    store.set_whole(blob, size)
    frames = [
        (_digest(number, layer, extent), start, end - start, 5000)
        for extent, (start, end, _, _) in enumerate(rows)
        if extent % 3 == 0
    ]
    store.add_chunks(blob, size, sorted(frames))
    return blob, size


def _image(store: Store, number: int, layers: list[tuple[Digest, int]]) -> None:
    diff_ids = [f"sha256:{number:032x}{layer:032x}" for layer in range(len(layers))]
    config = json.dumps({
        "os": "linux", "architecture": "amd64", "number": number, "rootfs": {"type": "layers",
            "diff_ids": diff_ids},
    }).encode()  # fmt: skip
    kind = "application/vnd.oci.image."
    listed = [
        {"mediaType": kind + "layer.v1.tar+zstd", "digest": blob, "size": size}
        for blob, size in layers
    ]
    descriptor = {
        "mediaType": kind + "config.v1+json",
        "digest": store.put(config),
        "size": len(config),
    }
    document = {
        "schemaVersion": 2,
        "mediaType": kind + "manifest.v1+json",
        "config": descriptor,
        "layers": listed,
    }
    manifest = store.put(json.dumps(document).encode())
    store.set_image(f"registry.example/app:v{number}", "linux/amd64", manifest, manifest)


if __name__ == "__main__":
    sys.exit(main())
