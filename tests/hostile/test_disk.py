"""Damage on our own disk.

Every byte of the store may be wrong, and the next pull heals it by fetching again.
"""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.front import chunked_layer, every, image, make_tar
from tests.helpers.harness.command import ARGV, environment, receipt, zpull
from tests.helpers.harness.hostile import (
    CHUNK,
    CONTENT,
    Bench,
    adds_up,
    bench,
    flipped,
    honest,
    is_clear_line,
    old_image,
    tars_are_right,
    victim,
)
from tests.helpers.harness.pulls import AMD64, IMPATIENT, Outcome
from tests.helpers.servers.memory import MemorySource
from tests.helpers.servers.registry import Registry
from zchunked.cli import run
from zchunked.errors import (
    DamagedLayerError,
    IntegrityError,
    LocalError,
    TransferError,
    TransientError,
)
from zchunked.export.images.layers import layers_of
from zchunked.maintenance.blob_check import reverify
from zchunked.maintenance.verify import verify
from zchunked.oci.digest import Digest
from zchunked.oci.reference import parse_image
from zchunked.options import GapOptions, Options
from zchunked.pull.origin import Origin
from zchunked.pull.pull import Pull
from zchunked.ranges import ByteRange, total
from zchunked.receipt import Receipt
from zchunked.store.images import load


def byte_files(on: Bench) -> list[Path]:
    return sorted(path for path in (on.store.folder / "blobs").iterdir() if not path.suffix)


def largest(on: Bench) -> Path:
    return max(byte_files(on), key=lambda path: path.stat().st_size)


def damage(on: Bench, hurt: Callable[[Path], object], *, only_largest: bool = True) -> None:
    for path in [largest(on)] if only_largest else byte_files(on):
        hurt(path)
    on.reopen()


def rewrite(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def becomes_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def becomes_a_link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


HURTS: dict[str, Callable[[Path], object]] = {
    "first byte": rewrite(lambda data: flipped(data, 0)),
    "last byte": rewrite(lambda data: flipped(data, -1)),
    **{
        f"byte at {n}/12": rewrite(lambda data, n=n: flipped(data, len(data) * n // 12))  # type: ignore[misc]
        for n in (3, 6, 9)
    },
    "every byte": rewrite(lambda data: bytes(byte ^ 0xFF for byte in data)),
    "zeros, as after a power loss": rewrite(lambda data: bytes(len(data))),
    "moved by one": rewrite(lambda data: b"\0" + data[:-1]),
    "cut to nothing": rewrite(lambda data: b""),
    "cut to half": rewrite(lambda data: data[: len(data) // 2]),
    "one byte short": rewrite(lambda data: data[:-1]),
    "grown": rewrite(lambda data: data + b"more"),
    "gone": Path.unlink,
    "a folder": becomes_a_folder,
    "a link to nothing": becomes_a_link_to_nothing,
}


@pytest.mark.parametrize("only_largest", [True, False], ids=["one file", "all files"])
@pytest.mark.parametrize("hurt", HURTS.values(), ids=HURTS)
def test_damage_before_an_update(tmp_path: Path, hurt: Any, only_largest: Any) -> None:
    """The old version's bytes are used for the new one; those that are wrong are fetched."""
    with bench(tmp_path, "warm") as on:
        damage(on, hurt, only_largest=only_largest)
        healed = on.pull(honest())
        on.is_right(healed, honest())
        spent = healed.receipt.bytes
        assert spent.cached + spent.needed <= spent.image, (
            "what this pull brought was not here before"
        )
        on.reopen()
        again = on.pull(honest())
        on.is_right(again, honest())
        assert again.receipt.bytes.needed == 0


def test_only_the_damaged_chunk_is_fetched_again(tmp_path: Path) -> None:
    with bench(tmp_path, "warm") as on:
        healthy = on.pull(honest()).receipt.bytes
    with bench(tmp_path / "other", "warm") as on:
        damage(on, rewrite(lambda data: flipped(data, len(data) // 2)))
        outcome = on.pull(honest())
        on.is_right(outcome, honest())
        assert healthy.needed < outcome.receipt.bytes.needed <= healthy.needed + CHUNK + 100
        assert outcome.receipt.bytes.wasted == 0


def test_what_a_pull_brought_before_it_healed_was_not_here(tmp_path: Path) -> None:
    """Half of a layer is gone, and one chunk of the rest is damaged.

    The second round finds nearly all of it here.
    """
    metered = GapOptions(max_gap=0)
    layer = Digest(honest().layers[0].digest)
    with bench(tmp_path, "cold") as on:
        on.pull(honest(), gaps=metered)
        chunks = [
            ByteRange(start, start + length) for _, start, length, _ in on.store.chunks_of(layer)
        ]
        hurt, gone = chunks[0], chunks[len(chunks) // 2 :]
        on.store.evict(layer, gone)
        good = on.store.read(layer, hurt.start, hurt.end)
        damage(on, rewrite(lambda data: data.replace(good, flipped(good))), only_largest=False)
        outcome = on.pull(honest(), gaps=metered)
        on.is_right(outcome, honest())
        spent = outcome.receipt.bytes
        assert spent.needed == total([hurt, *gone])
        assert spent.cached + spent.needed <= spent.image


@pytest.mark.parametrize("in_parts", [False, True], ids=["whole", "in parts"])
@pytest.mark.parametrize("hurt", HURTS.values(), ids=HURTS)
def test_damage_at_rest_is_told_and_healed(tmp_path: Path, hurt: Any, in_parts: Any) -> None:
    """An export never hands out a wrong byte.

    `verify` finds the damage, and the next pull fetches what it dropped.
    """
    with bench(tmp_path, "cold") as on:
        on.pull(honest(), gaps=GapOptions(max_gap=0 if in_parts else None))
        damage(on, hurt)
        stored = load(on.store, "example.com/app:t", None, None)
        layer = honest().layers[0]
        try:
            tar = b"".join(bytes(piece) for piece in layers_of(on.store, stored)[0].tar())
        except IntegrityError:
            pass
        else:
            assert tar == layer.tar
        verify(on.store)
        on.reopen()
        on.is_right(on.pull(honest()), honest())


@pytest.mark.parametrize("which", ["manifest", "config"])
@pytest.mark.parametrize(
    "hurt", [HURTS["first byte"], HURTS["cut to half"], HURTS["gone"], HURTS["grown"]]
)
def test_damaged_document(tmp_path: Path, which: Any, hurt: Any) -> None:
    content = honest()
    data = content.manifest if which == "manifest" else content.config
    with bench(tmp_path, "cold") as on:
        on.pull(content)
        path = next(path for path in byte_files(on) if path.read_bytes() == data)
        hurt(path)
        on.reopen()
        outcome = on.pull(content, digest=Digest(content.digest))
        on.is_right(outcome, content)
        on.reopen()
        stored = load(on.store, "example.com/app:t", None, None)
        assert stored.config_data == content.config


# ── what an interrupted pull left, damaged before it goes on ──


def cut_at(digest: str, position: int) -> Any:
    def change(blob: Any, at: int, piece: bytes) -> bytes:
        if blob.digest == digest and at <= position < at + len(piece):
            raise TransientError("cut")
        return piece

    return change


@pytest.mark.parametrize("in_parts", [False, True], ids=["whole", "in parts"])
@pytest.mark.parametrize("hurt", HURTS.values(), ids=HURTS)
def test_damage_of_what_an_interrupted_pull_left(tmp_path: Path, hurt: Any, in_parts: Any) -> None:
    content = honest()
    gaps = GapOptions(max_gap=0 if in_parts else None)
    with bench(tmp_path, "cold") as on:
        with pytest.raises(TransferError):
            on.pull(content, change=cut_at(content.layers[0].digest, 70_000), gaps=gaps)
        damage(on, hurt, only_largest=False)
        on.is_right(on.pull(content, gaps=gaps), content)


@pytest.mark.parametrize("generation", [1, 2])
def test_damaged_header_frames_of_an_interrupted_pull(tmp_path: Path, generation: Any) -> None:
    """No digest vouches for these alone: the tar is wrong, or no tar at all."""
    content = image([victim(generation=generation)])
    layer = content.layers[0]
    first, last = layer.gaps[1]
    with bench(tmp_path, "cold") as on:
        with pytest.raises(TransferError):
            on.pull(content, change=cut_at(layer.digest, 70_000), gaps=GapOptions(max_gap=0))
        frame = layer.blob[first:last]
        path = next(path for path in byte_files(on) if frame in path.read_bytes())
        path.write_bytes(path.read_bytes().replace(frame, flipped(frame, 20)))
        on.reopen()
        on.is_right(on.pull(content, gaps=GapOptions(max_gap=0)), content)


@pytest.mark.parametrize("part", ["toc_at", "tar_split_at"])
@pytest.mark.parametrize("in_parts", [False, True], ids=["whole", "in parts"])
def test_damaged_toc_or_tar_split_of_an_interrupted_pull(
    tmp_path: Path, part: Any, in_parts: Any
) -> None:
    content = honest()
    layer = content.layers[0]
    at = getattr(layer, part)
    gaps = GapOptions(max_gap=0 if in_parts else None)
    with bench(tmp_path, "cold" if in_parts else "exact") as on:
        with pytest.raises(TransferError):
            on.pull(content, change=cut_at(layer.digest, 70_000 if in_parts else 20_000), gaps=gaps)
        frame = layer.blob[at.offset : at.end]
        path = next(path for path in byte_files(on) if frame in path.read_bytes())
        path.write_bytes(path.read_bytes().replace(frame, flipped(frame, 20)))
        on.reopen()
        outcome = on.pull(content, gaps=gaps)
        on.is_right(outcome, content)
        spent = outcome.receipt.bytes
        assert spent.metadata >= at.length
        assert spent.wasted == 0


# ── the index ──


def sql(on: Bench, *statements: str) -> None:
    on.store.close()
    with closing(sqlite3.connect(on.store.folder / "index.sqlite")) as db, db:
        for statement in statements:
            db.execute(statement)
    on.store = type(on.store)(on.store.folder)


ROWS: dict[str, str] = {
    "extents of a file that is not there": "UPDATE extents SET file = 'abcdefabcdef-1'",
    "extents of a file elsewhere": "UPDATE extents SET file = '../../../../../etc/passwd'",
    "extents behind the end of their file": "UPDATE extents SET at = at + 1000000",
    "extents moved by one": "UPDATE extents SET at = at + 1",
    "extents before their file": "UPDATE extents SET at = -5",
    "extents that start before the blob": "UPDATE extents SET start = start - 5",
    "extents of no length": "UPDATE extents SET length = 0",
    "extents of less than no length": "UPDATE extents SET length = -5",
    "extents longer than they are": "UPDATE extents SET length = length + 1000000",
    "no extents": "DELETE FROM extents",
    "chunks elsewhere": "UPDATE chunks SET start = start + 1",
    "chunks behind the blob": "UPDATE chunks SET start = 1 << 40",
    "chunks before the blob": "UPDATE chunks SET start = -1",
    "chunks of no length": "UPDATE chunks SET length = 0",
    "chunks of less than no length": "UPDATE chunks SET length = -7",
    "chunks of another size": "UPDATE chunks SET size = size + 1",
    "chunks of another blob": "UPDATE chunks SET blob = (SELECT min(id) FROM blobs)",
    "chunks of a blob that is not there": "UPDATE chunks SET blob = 999",
    "no chunks": "DELETE FROM chunks",
    "everything whole": "UPDATE blobs SET whole = 1",
    "nothing whole": "UPDATE blobs SET whole = 0",
    "sizes wrong": "UPDATE blobs SET size = size + 1",
    "no blobs": "DELETE FROM blobs",
}


@pytest.mark.parametrize("statement", ROWS.values(), ids=ROWS)
def test_index_that_lies(tmp_path: Path, statement: Any) -> None:
    with bench(tmp_path, "exact") as on:
        sql(on, statement)
        on.is_right(on.pull(honest()), honest())


@pytest.mark.parametrize(
    "data",
    [b"", b"no database" * 1000, b"SQLite format 3\0" + bytes(5000)],
    ids=["empty", "junk", "half"],
)
def test_index_that_is_no_database(tmp_path: Path, data: Any) -> None:
    """One clear line, and nothing is lost: without an index there is nothing to lose."""
    with bench(tmp_path, "warm") as on:
        on.store.close()
        for path in on.store.folder.glob("index.sqlite*"):
            path.unlink()
        (on.store.folder / "index.sqlite").write_bytes(data)
        try:
            on.store = type(on.store)(on.store.folder)
        except LocalError as error:
            is_clear_line(str(error))
            (on.store.folder / "index.sqlite").unlink()
            on.store = type(on.store)(on.store.folder)
        on.is_right(on.pull(honest()), honest())


JOURNALS: dict[str, bytes] = {
    "empty": b"",
    "junk": b"\xff" * 100,
    "no object": b"5\n",
    "path for a digest": b'{"blob":"sha256:../../x","size":5,"boot":""}\n',
    "nesting bomb": b"[" * 100_000,
    "size is text": b'{"blob":"sha256:' + b"a" * 64 + b'","size":"x","boot":""}\n',
    "size is infinite": b'{"blob":"sha256:' + b"a" * 64 + b'","size":1e999,"boot":""}\n',
    "bad UTF-8": b'{"blob":"\xff"}\n',
}


@pytest.mark.parametrize("data", JOURNALS.values(), ids=JOURNALS)
def test_journal_that_is_none(tmp_path: Path, data: Any) -> None:
    with bench(tmp_path, "warm") as on:
        (on.store.folder / "blobs" / "0123456789ab-1.map").write_bytes(data)
        (on.store.folder / "blobs" / "0123456789ab-1").write_bytes(b"some")
        on.reopen()
        on.is_right(on.pull(honest()), honest())
        assert not list((on.store.folder / "blobs").glob("*.map"))


def test_evicted_bytes_that_another_layer_rests_on(tmp_path: Path) -> None:
    """A layer is fetched whole over what is here of it; a damaged chunk of that goes.

    The line breaks.

    The other image, which uses that chunk, must not believe itself complete.
    """
    content, layer = honest(), honest().layers[0]
    other = image(
        [chunked_layer(make_tar({"program": CONTENT["bin/app"], "x": b"x"}), cut=every(CHUNK))]
    )
    with bench(tmp_path, "cold") as on:
        on.pull(content, gaps=GapOptions(max_gap=0))
        on.partial(other, name="example.com/other:t")
        sql(on, f"DELETE FROM layers WHERE digest = '{layer.digest}'")
        chunk = next(chunk for chunk in layer.chunks if chunk.file == "bin/app")
        frame = layer.blob[chunk.start : chunk.end]
        damage(
            on,
            rewrite(lambda data: data.replace(frame, flipped(frame, len(frame) // 2))),
            only_largest=False,
        )
        with pytest.raises(TransferError):
            on.pull(content, change=cut_at(layer.digest, chunk.start), gaps=GapOptions(exact=True))
        on.is_right(on.pull(other, "example.com/other:t"), other)


def test_damaged_bytes_that_two_layers_rest_on(tmp_path: Path) -> None:
    """What `verify` drops of one layer, another needs too.

    Both are whole again after a pull of each.
    """
    with bench(tmp_path, "warm") as on:
        on.is_right(on.pull(honest()), honest())  # rests on bytes of the old layer
        damage(on, HURTS["byte at 6/12"])
        verify(on.store)
        on.is_right(on.pull(honest()), honest())
        on.is_right(on.pull(old_image(), "example.com/old:t"), old_image())


# ── damage of what was proved, met by an export ──


@pytest.mark.parametrize("in_parts", [False, True], ids=["whole", "in parts"])
@pytest.mark.parametrize("hurt", HURTS.values(), ids=HURTS)
def test_pull_that_shall_export_heals(tmp_path: Path, hurt: Any, in_parts: Any) -> None:
    content = honest()
    with bench(tmp_path, "cold") as on:
        on.pull(content, gaps=GapOptions(max_gap=0 if in_parts else None))
        damage(on, hurt, only_largest=False)
        source, outcome = MemorySource(content), Outcome(Receipt("example.com/app:t"))
        settings = Options(AMD64, patience=IMPATIENT)
        reference = parse_image("example.com/app:t")
        origin = Origin(reference, source, source.traffic, Digest(content.digest))
        work = Pull(origin, on.store, settings, outcome.receipt, outcome.events.append)
        outcome.image = work.run()
        with contextlib.suppress(DamagedLayerError):  # some damage is to bytes that no tar needs
            tars_are_right(on.store, outcome.image, content)
        outcome.image = work.repair(outcome.image)
        on.is_right(outcome, content)
        adds_up(outcome.receipt, source)
        assert not verify(on.store).damaged


@pytest.mark.parametrize("hurt", [HURTS["byte at 6/12"], HURTS["cut to half"], HURTS["gone"]])
def test_what_an_export_finds_the_next_pull_heals(tmp_path: Path, hurt: Any) -> None:
    with Registry({"t": honest()}) as registry:
        image, target = registry.reference("t"), f"docker-archive:{tmp_path / 'app.tar'}"
        zpull(tmp_path, image)
        hurt(max((tmp_path / "store" / "blobs").iterdir(), key=lambda path: path.stat().st_size))
        assert zpull(tmp_path, "export", image, "--to", target, check=False).code == 6
        assert receipt(tmp_path, image)["bytes"]["fetched"] > 10_000
        zpull(tmp_path, "export", image, "--to", target)


def test_what_an_export_says_of_damage(tmp_path: Path) -> None:
    with bench(tmp_path, "cold") as on:
        outcome = on.pull(honest())
        damage(on, HURTS["byte at 6/12"])
        with pytest.raises(
            DamagedLayerError, match="run `zpull verify`, then pull the image again"
        ) as caught:
            on.is_right(outcome, honest())
        is_clear_line(str(caught.value))
        assert honest().layers[0].digest in str(caught.value)


def test_only_the_damage_comes_again(tmp_path: Path) -> None:
    content = honest()
    with bench(tmp_path, "cold") as on:
        outcome = on.pull(content, gaps=GapOptions(exact=True))
        damage(on, HURTS["byte at 3/12"])
        assert outcome.image is not None
        reverify(on.store, outcome.image.documents.manifest.layers)
        again = on.pull(content)
        on.is_right(again, content)
        assert 0 < again.receipt.bytes.needed <= CHUNK + 100


@pytest.mark.parametrize("which", ["manifest", "config", "all"])
@pytest.mark.parametrize(
    "hurt", [HURTS["first byte"], HURTS["cut to nothing"], HURTS["gone"], HURTS["a folder"]]
)
def test_commands_on_a_store_with_damaged_documents(
    tmp_path: Path, capsys: Any, which: Any, hurt: Any
) -> None:
    content = honest()
    with bench(tmp_path, "cold") as on:
        on.pull(content)
        for path in byte_files(on):
            if which == "all" or path.read_bytes() == getattr(content, which):
                hurt(path)
    store = ["--store", str(tmp_path / "store")]
    wanted = {"images": {0}, "export": {3}, "verify": {0, 6}}
    for form in ([], ["--format", "json"]):
        for verb, codes in wanted.items():
            more = ["example.com/app:t", "--to", f"oci:{tmp_path}/out"] if verb == "export" else []
            assert run([verb, *more, *store, *form]) in codes
            told = capsys.readouterr()
            assert (content.digest in told.out) == (verb == "images")
            for line in told.err.splitlines():
                is_clear_line(line)
            assert verb != "export" or "pull the image again" in told.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("hurt", [HURTS["byte at 6/12"], HURTS["cut to half"], HURTS["gone"]])
def test_command_that_pulls_and_exports_heals(tmp_path: Path, hurt: Any) -> None:
    archive, store = tmp_path / "app.tar", tmp_path / "store"

    def spoil(hurt: Callable[[Path], object]) -> None:
        hurt(max((store / "blobs").iterdir(), key=lambda path: path.stat().st_size))

    with Registry({"t": honest()}) as registry:
        image = registry.reference("t")
        zpull(tmp_path, image)
        spoil(hurt)
        offline = zpull(tmp_path, "export", image, "--to", f"oci-archive:{archive}", check=False)
        assert offline.code == 6
        assert "run `zpull verify`, then pull the image again" in offline.error
        assert not archive.exists()
        told = receipt(tmp_path, image, "--to", f"oci-archive:{archive}")
        spent = told["bytes"]
        assert (
            spent["fetched"]
            == spent["needed"] + spent["metadata"] + spent["gap"] + spent["wasted"]
            > 0
        )
        assert [export["to"] for export in told["exports"]] == [f"oci-archive:{archive}"]
        assert archive.exists()
        zpull(tmp_path, "verify")
        spoil(HURTS["every byte"])
        argv = [*ARGV, image, "--to", "docker-archive:-"]
        broken = subprocess.run(argv, env=environment(tmp_path), capture_output=True, check=False)
        assert broken.returncode == 6
        # what was written there cannot be taken back
        assert b"run the same command again" in broken.stderr
        zpull(tmp_path, "verify")
        zpull(tmp_path, "export", image, "--to", f"docker-archive:{tmp_path}/docker.tar")
