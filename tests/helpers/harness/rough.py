"""What tests of bad links share: images, a finished store, and whether a pull is right."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.helpers.build.front import Image, chunked_layer, gzip_layer, image, make_tar
from tests.helpers.harness.command import ARGV, Ended, environment
from tests.helpers.servers.accounts import Kind
from tests.helpers.servers.faults import Fault, Rule, on
from tests.helpers.servers.registry import Registry
from zchunked.export.images.layers import layers_of
from zchunked.findings import Findings
from zchunked.maintenance.verify import verify
from zchunked.store import Store
from zchunked.store.images import load

KINDS: tuple[Kind, ...] = ("token", "manifest", "config", "toc")
"""Every request of a pull that is not for a layer's contents."""


def files(seed: int, count: int, size: int) -> dict[str, bytes]:
    """Files that no compressor makes smaller."""
    dice = random.Random(seed)
    return {f"usr/share/{seed}/{number:04}": dice.randbytes(size) for number in range(count)}


@cache
def versions() -> dict[str, Image]:
    """v1 and v2 share half of a zstd:chunked layer; v2 has a gzip layer too."""
    shared, old, new = files(1, 30, 10_000), files(2, 5, 10_000), files(3, 30, 10_000)
    # what is missing lies between
    mixed = dict(sorted((shared | new).items(), key=lambda item: item[0][-4:]))
    return {
        "v1": image([chunked_layer(make_tar(shared | old))]),
        "v2": image([chunked_layer(make_tar(mixed)), gzip_layer(make_tar(files(4, 20, 10_000)))]),
    }


@cache
def large(size: int = 3_000_000) -> Image:
    """Two zstd:chunked layers and a gzip layer: something to break off in the middle of."""
    one = files(5, 60, size // 120)
    two = files(6, size // 4000, 1000)
    return image(
        [
            chunked_layer(make_tar(one)),
            chunked_layer(make_tar(two)),
            gzip_layer(make_tar(files(7, 10, size // 40))),
        ]
    )


def gzip_of(made: Image) -> str:
    return next(layer.digest for layer in made.layers if layer.media_type.endswith("gzip"))


def everywhere(fault: Fault, made: Image, *, nth: int = 1) -> list[Rule]:
    """The fault once at every kind of request: token, manifest, config, TOC, chunks, a layer."""
    whole = gzip_of(made)
    return [
        *(on(kind, fault, nth=nth) for kind in KINDS),
        on("blob", fault, nth=nth, when=lambda request: request.digest != whole),
        on("blob", fault, nth=nth, when=lambda request: request.digest == whole),
    ]


def used(registry: Registry) -> list[int]:
    """How often each rule was applied."""
    return list(registry._script._used)


@cache
def _finished(folder: str) -> Path:
    home = Path(folder)
    with Registry(versions()) as registry:
        run(home, registry, "v1")
    return home


def with_v1(home: Path, cache_of: Path) -> Path:
    """A home whose store holds v1; made once and copied."""
    done = _finished(str(cache_of / "v1"))
    shutil.copytree(done, home, dirs_exist_ok=True)
    return home


def run(home: Path, registry: Registry, tag: str, *options: str, check: int | None = 0) -> Ended:
    """Pull and print the receipt; `check` is the exit code that is wanted."""
    home.mkdir(exist_ok=True, parents=True)
    with started(home, registry.reference(tag), *options) as process:
        out, err = process.communicate(timeout=120)
    ended = Ended(process.returncode, out, err)
    assert check is None or ended.code == check, f"exit {ended.code}\n{err}"
    assert "Traceback" not in err, err
    if out:
        balanced(ended.receipt)
    return ended


@contextmanager
def started(
    home: Path,
    reference: str,
    *options: str,
    env: Mapping[str, str] | None = None,
    stdin: int | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """A pull under way; killed at the end of the block if it still is."""
    argv = [*ARGV, reference, "--format", "json", *options]
    with subprocess.Popen(
        argv,
        env=environment(home, env),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def kill_after(
    process: subprocess.Popen[str], registry: Registry, size: int, number: int = signal.SIGKILL
) -> bool:
    """Send the signal after so many more body bytes; False if the pull was done before."""
    until = registry.accounts.body_bytes + size
    while registry.accounts.body_bytes < until:
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    if process.poll() is not None:
        return False
    process.send_signal(number)
    return True


def balanced(receipt: dict[str, Any]) -> None:
    """Every byte in exactly one column."""
    spent = receipt["bytes"]
    assert min(spent.values()) >= 0, spent
    assert (
        spent["fetched"] == spent["needed"] + spent["metadata"] + spent["gap"] + spent["wasted"]
    ), spent


def assert_right(home: Path, registry: Registry, tag: str) -> None:
    """The image is stored, each layer's tar has its diff ID, and nothing is damaged."""
    made = registry.content.manifests[registry.content.tags[tag]]
    with Store(home / "store") as store:
        assert verify(store).damaged == []
        found = load(store, registry.reference(tag), None, None)
        assert found.documents.manifest_data == made[1]
        for content in layers_of(store, found):
            hasher = hashlib.sha256()
            for piece in content.tar():
                hasher.update(piece)
            assert "sha256:" + hasher.hexdigest() == content.diff_id


def verified(home: Path) -> Findings:
    with Store(home / "store") as store:
        return verify(store)
