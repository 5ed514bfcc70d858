"""Seeds: what of an image lies on this machine already need not come.

What changed there does no harm.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.build.front import (
    Image,
    chunked_layer,
    gzip_layer,
    image,
    make_tar,
    read_layout,
    write_layout,
)
from tests.helpers.build.golden import Golden
from tests.helpers.build.stored import quick_folder
from tests.helpers.harness.extract import extract
from tests.helpers.harness.pulls import Outcome, open_store, pull
from tests.helpers.servers.memory import MemorySource
from zchunked.events import Noted
from zchunked.export.images.layers import layers_of
from zchunked.maintenance.verify import verify
from zchunked.seeds import scan as finding
from zchunked.seeds.pack import Packer
from zchunked.store import Store

DICE = random.Random(5)
SMALL = {f"usr/share/{number:03}": DICE.randbytes(3000 + number % 7) for number in range(40)}
LARGE = DICE.randbytes(700_000)  # many chunks


def changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


V1 = image([chunked_layer(make_tar(SMALL | {"usr/lib/large": LARGE}))])
V2_FILES = SMALL | {
    "usr/lib/large": LARGE,
    "usr/share/001": b"new one",
    "usr/share/new": DICE.randbytes(5000),
}
V2 = image([chunked_layer(make_tar(V2_FILES))])


def unpack(made: Image, folder: Path) -> Path:
    for layer in made.layers:
        with tarfile.open(fileobj=io.BytesIO(layer.tar)) as tar:
            extract(tar, folder)
    return folder


def as_tree(made: Image, tmp: Path) -> Path:
    return unpack(made, tmp / "tree")


def as_tar(made: Image, tmp: Path) -> Path:
    tmp.joinpath("x.tar").write_bytes(made.layers[0].tar)
    return tmp / "x.tar"


def as_gzip(made: Image, tmp: Path) -> Path:
    tmp.joinpath("x.tgz").write_bytes(gzip.compress(made.layers[0].tar))
    return tmp / "x.tgz"


def as_zstd(made: Image, tmp: Path) -> Path:
    tmp.joinpath("x.tar.zst").write_bytes(zstandard.compress(made.layers[0].tar))
    return tmp / "x.tar.zst"


def as_layout(made: Image, tmp: Path) -> Path:
    return write_layout(tmp / "layout", {"t": made})


def as_gzip_layout(made: Image, tmp: Path) -> Path:
    return write_layout(
        tmp / "layout", {"t": image([gzip_layer(layer.tar) for layer in made.layers])}
    )


def as_saved(made: Image, tmp: Path) -> Path:
    """What `docker save` and `podman save` write: an archive of archives."""
    with tarfile.open(tmp / "saved.tar", "w") as tar:
        for name, data in (("manifest.json", b"[]"), ("0/layer.tar", made.layers[0].tar)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return tmp / "saved.tar"


def as_oci_archive(made: Image, tmp: Path) -> Path:
    with tarfile.open(tmp / "oci.tar", "w") as tar:
        tar.add(as_layout(made, tmp), ".")
    return tmp / "oci.tar"


KINDS: list[Callable[[Image, Path], Path]] = [
    as_tree,
    as_tar,
    as_gzip,
    as_zstd,
    as_layout,
    as_gzip_layout,
    as_saved,
    as_oci_archive,
]


def chunks_of(made: Image) -> dict[str, int]:
    """Digest → compressed size of the chunks that are worth fetching."""
    return {
        chunk.digest: chunk.end - chunk.start
        for layer in made.layers
        for chunk in layer.chunks
        if not chunk.zeros
    }


def assert_pulled(outcome: Outcome, made: Image, store: Store) -> None:
    assert outcome.image is not None
    for content, layer in zip(layers_of(store, outcome.image), made.layers, strict=True):
        assert (
            hashlib.sha256(b"".join(content.tar())).hexdigest()
            == hashlib.sha256(layer.tar).hexdigest()
        )
    spent = outcome.receipt.bytes
    assert spent.fetched == spent.needed + spent.metadata + spent.gap + spent.wasted
    assert spent.wasted == 0


def seeded(made: Image, home: Path, *seeds: Path) -> Outcome:
    home.mkdir(exist_ok=True)
    with open_store(home) as store:
        outcome = pull(MemorySource(made), store, seeds=tuple(seeds))
        assert_pulled(outcome, made, store)
        assert not verify(store).damaged
    return outcome


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_the_seed_lacks_comes(
    kind: Callable[[Image, Path], Path], tmp_path: Path
) -> None:
    seed = kind(V1, tmp_path)
    lacking = {
        digest: size for digest, size in chunks_of(V2).items() if digest not in chunks_of(V1)
    }
    outcome = seeded(V2, tmp_path / "one", seed)
    assert outcome.receipt.bytes.needed == sum(lacking.values())
    entry = outcome.receipt.layers[0]
    assert entry.mode == "partial"
    assert entry.cached_bytes == sum(chunks_of(V2).values()) - sum(lacking.values())
    assert seeded(V2, tmp_path / "two", seed).receipt.bytes == outcome.receipt.bytes


def test_a_seed_that_has_everything_leaves_the_metadata(tmp_path: Path) -> None:
    outcome = seeded(V1, tmp_path / "home", as_tree(V1, tmp_path))
    assert outcome.receipt.bytes.needed == 0


def test_several_seeds_add_up_and_one_that_is_missing_is_named(tmp_path: Path) -> None:
    one, two = tmp_path / "a", tmp_path / "b"
    for number, (name, data) in enumerate(SMALL.items()):
        path = (one if number % 2 else two) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    made = image([chunked_layer(make_tar(SMALL))])
    outcome = seeded(made, tmp_path / "home", one, tmp_path / "absent", two)
    assert outcome.receipt.bytes.needed == 0
    told = [event.text for event in outcome.events if isinstance(event, Noted)]
    assert any("absent" in text and "No such file" in text for text in told)


def test_the_golden_update_from_the_unpacked_older_image(tmp_path: Path) -> None:
    """The compressor differs, the contents do not: a real writer's chunks are found as well."""
    before, after = Golden("demo", "demo-v1"), Golden("demo", "demo-v2")
    content = read_layout(before.layout)
    source = MemorySource(content, "demo-v1")
    with open_store(tmp_path) as store:
        outcome = pull(source, store)
        assert outcome.image is not None
        for layer in layers_of(store, outcome.image):
            with tarfile.open(fileobj=io.BytesIO(b"".join(layer.tar()))) as tar:
                members = [one for one in tar if one.isreg() or one.isdir()]
                extract(tar, tmp_path / "root", members)
    with open_store(tmp_path / "other") as store:
        outcome = pull(MemorySource(content, "demo-v2"), store, seeds=(tmp_path / "root",))
    assert outcome.receipt.bytes.needed == after.expect["updates"]["from:demo-v1"]["missing_bytes"]
    assert outcome.receipt.bytes.fetched < after.expect["image_bytes"] / 4


def test_a_large_file_that_grew_in_the_middle_is_found_by_its_name(tmp_path: Path) -> None:
    grown = LARGE[:400_000] + b"something new" + LARGE[400_000:]
    before = image([chunked_layer(make_tar({"usr/lib/large": LARGE}))])
    after = image([chunked_layer(make_tar({"usr/lib/large": grown}))])
    lacking = {
        digest: size for digest, size in chunks_of(after).items() if digest not in chunks_of(before)
    }
    assert len(lacking) < len(chunks_of(after)) / 2
    outcome = seeded(after, tmp_path / "home", as_tree(before, tmp_path))
    assert outcome.receipt.bytes.needed == sum(lacking.values())


def test_what_changed_since_it_was_looked_at_is_noticed_by_its_digest(tmp_path: Path) -> None:
    """The same size, times and inode, and a memory that vouches for it.

    The bytes tell all the same.
    """
    seed = as_tree(V1, tmp_path)
    with open_store(tmp_path) as store:
        pull(MemorySource(V2), store, seeds=(seed,))
        victim = seed / "usr/share/002"
        state = victim.stat()
        right = hashlib.sha256(SMALL["usr/share/002"]).digest()
        victim.write_bytes(changed(SMALL["usr/share/002"], 5))
        os.utime(victim, ns=(state.st_atime_ns, state.st_mtime_ns))
        stamp = finding.stamp_of(victim.stat())
    with open_store(tmp_path / "other") as store:
        store.remember_seeds([(state.st_ino, 0, state.st_size, stamp, right)])
        outcome = pull(MemorySource(V2), store, seeds=(seed,))
        assert_pulled(outcome, V2, store)
        assert store.recall_seeds([state.st_ino])[state.st_ino, 0, state.st_size][1] != right
    fresh = {digest: size for digest, size in chunks_of(V2).items() if digest not in chunks_of(V1)}
    victim_size = chunks_of(V2)["sha256:" + right.hex()]
    assert outcome.receipt.bytes.needed == sum(fresh.values()) + victim_size


def test_a_seed_that_changes_later_changes_nothing(tmp_path: Path) -> None:
    seed = as_tree(V1, tmp_path)
    with open_store(tmp_path) as store:
        outcome = pull(MemorySource(V2), store, seeds=(seed,))
        for path in seed.rglob("*"):
            if path.is_file():
                path.write_bytes(b"gone")
        assert_pulled(outcome, V2, store)


def test_files_are_hashed_once_for_many_pulls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = tmp_path / "seed"
    seed.mkdir()
    for number in range(50):
        # the right size, and nothing that is wanted
        seed.joinpath(str(number)).write_bytes(DICE.randbytes(3000))
    opened: list[str] = []
    real = finding.opened

    def noted(path: str) -> int:
        opened.append(path)
        return real(path)

    monkeypatch.setattr("zchunked.seeds.importer.opened", noted)
    with open_store(tmp_path) as store:
        pull(MemorySource(V1), store, seeds=(seed,))
        hashed = store.recall_seeds([path.stat().st_ino for path in seed.iterdir()])
        assert len(hashed) == len(opened) == 50

        def refuse(*_: object) -> bytes:
            raise AssertionError("it was hashed already")

        monkeypatch.setattr("zchunked.seeds.chunk_copier.read_at", refuse)
        other = image([chunked_layer(make_tar({"other": DICE.randbytes(3000)}))])
        pull(MemorySource(other), store, seeds=(seed,))


def test_odd_things_in_a_seed_are_stepped_over(tmp_path: Path) -> None:
    seed = tmp_path / "seed"
    deep = seed / "deep"
    deep.mkdir(parents=True)
    os.mkfifo(seed / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(seed / "socket"))
    (seed / "circle").symlink_to(seed)
    (seed / "nowhere").symlink_to("/does/not/exist")
    (seed / "empty").mkdir()
    (seed / "void").write_bytes(b"")
    os.truncate(seed / "void", 0)
    with (seed / "sparse").open("wb") as sparse:
        sparse.truncate(len(LARGE))
    seed.joinpath(os.fsdecode(b"\xff\xfe")).write_bytes(SMALL["usr/share/001"])
    (tmp_path / "outside").write_bytes(SMALL["usr/share/002"])
    (seed / "link").symlink_to(tmp_path / "outside")
    for number in range(3):
        os.link(seed / "sparse", deep / str(number))
    outcome = seeded(V1, tmp_path / "home", seed)
    told = [event.text for event in outcome.events if isinstance(event, Noted)]
    assert any(text.startswith("seeds hold 1 of") for text in told)


def test_a_pipe_put_in_a_files_place_does_not_hold_us(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError):
        finding.opened(str(tmp_path / "pipe"))


def test_what_may_not_be_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed, real = as_tree(V1, tmp_path), finding.opened

    def refuse(path: str) -> int:
        if path.endswith("005"):
            raise PermissionError
        return real(path)

    monkeypatch.setattr("zchunked.seeds.importer.opened", refuse)
    outcome = seeded(V1, tmp_path / "home", seed)
    digest = "sha256:" + hashlib.sha256(SMALL["usr/share/005"]).hexdigest()
    assert outcome.receipt.bytes.needed == chunks_of(V1)[digest]


def test_a_long_chunk_is_streamed_and_one_that_lies_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zchunked.seeds.chunk_copier.LONG", 10_000)
    data = DICE.randbytes(50_000)
    made = image(
        [
            chunked_layer(
                make_tar({"long": data, "other": DICE.randbytes(100)}),
                cut=lambda whole: [len(whole)],
            )
        ]
    )
    seed = tmp_path / "seed"
    seed.mkdir()
    seed.joinpath("long").write_bytes(data)
    outcome = seeded(made, tmp_path / "home", seed)
    assert outcome.receipt.bytes.needed < 1000
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as tar:
        tar.add(seed / "long", "long")
    assert seeded(made, tmp_path / "other", tmp_path / "x.tgz").receipt.bytes.needed < 1000
    assert seeded(made, tmp_path / "fourth", as_layout(made, tmp_path)).receipt.bytes.needed == 0
    with open_store(tmp_path / "third") as store:
        packer = Packer(store)
        turns = iter([data, changed(data, 7)])
        assert not packer.add_long(
            hashlib.sha256(data).digest(), len(data), lambda: iter([next(turns)])
        )
        assert store.find_chunks([hashlib.sha256(data).digest()]) == {}
        assert all(not store.covered(blob) for blob, _, _ in store.blobs())


def test_exact_asks_no_seed(tmp_path: Path) -> None:
    from zchunked.options import GapOptions  # noqa: PLC0415

    with open_store(tmp_path) as store:
        outcome = pull(
            MemorySource(V1), store, seeds=(as_tree(V1, tmp_path),), gaps=GapOptions(exact=True)
        )
        assert store.is_whole(outcome.image.documents.manifest.layers[0].digest)  # type: ignore[union-attr]


def test_an_archive_that_breaks_off_is_good_up_to_there(tmp_path: Path) -> None:
    path = as_tar(V1, tmp_path)
    os.truncate(path, path.stat().st_size // 2)
    lacking = chunks_of(V1)
    assert (
        0 < seeded(V1, tmp_path / "home", path).receipt.bytes.needed < sum(lacking.values()) * 0.7
    )
    broken = bytearray(as_tar(V1, tmp_path).read_bytes())
    broken[len(broken) // 2 :] = DICE.randbytes(len(broken) // 2)
    path.write_bytes(broken)
    assert seeded(V1, tmp_path / "other", path).receipt.bytes.needed < sum(lacking.values()) * 0.7


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None
)
@given(
    damage=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=5),
    cut=st.integers(0, 1 << 20),
)
@pytest.mark.parametrize("kind", [as_tar, as_gzip, as_zstd, as_saved])
def test_a_damaged_archive_gives_what_it_can_and_never_fails(
    kind: Callable[[Image, Path], Path], damage: list[tuple[int, int]], cut: int
) -> None:
    made = image([chunked_layer(make_tar(dict(list(SMALL.items())[:6])))])
    with quick_folder() as tmp:
        path = kind(made, tmp)
        data = bytearray(path.read_bytes())
        for at, value in damage:
            data[at % len(data)] = value
        path.write_bytes(data[: len(data) - cut % len(data)] if cut % 2 else data)
        seeded(made, tmp / "home", path)
