"""Promises that poison the store.

A layer that comes whole may claim any chunk, and others rely on it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.front import (
    Entry,
    Image,
    Json,
    chunked_layer,
    every,
    image,
    make_tar,
    sha256,
)
from tests.helpers.harness.hostile import (
    CHUNK,
    CONTENT,
    IN_PARTS,
    SECRET,
    SHARED,
    Edit,
    bench,
    both,
    honest,
    moves,
    noise,
    victim,
)
from zchunked.errors import IntegrityError
from zchunked.layers.index_frames import index_blobs, unindexed
from zchunked.limits import DEFAULT_LIMITS
from zchunked.oci.digest import Digest, raw
from zchunked.options import GapOptions
from zchunked.ranges import ByteRange, total
from zchunked.store import Store

LEAN = GapOptions(lean=True)


def poisoned(edit: Edit, **hooks: Any) -> Image:
    """Its files are junk, of the sizes of the victim's.

    Blob digest and diff ID are right, so it may come whole.
    """
    files = {
        "junk": noise(60_000, 20),
        "junk.conf": noise(len(SECRET), 21),
        "junk.zeros": bytes(100) + noise(5000, 22),
    }
    return image([chunked_layer(make_tar(files), cut=every(CHUNK), edit_toc=edit, **hooks)])


def claims_to_hold(name: str, data: bytes) -> Edit:
    """Chunk by chunk, as the victim's TOC has it."""

    def edit(toc: Json) -> None:
        entries = [entry for entry in toc["entries"] if entry["name"] == name]
        if len(entries) == 1:
            entries[0]["digest"] = sha256(data)
            return
        for number, entry in enumerate(entries):
            entry["chunkDigest"] = sha256(data[number * CHUNK : (number + 1) * CHUNK])

    return edit


POISON: dict[str, Edit] = {
    "chunks of a program": claims_to_hold("junk", CONTENT["bin/app"]),
    "a small file": claims_to_hold("junk.conf", SECRET),
    "both": both(claims_to_hold("junk", CONTENT["bin/app"]), claims_to_hold("junk.conf", SECRET)),
    "in the wrong range": both(
        claims_to_hold("junk", CONTENT["bin/app"]), moves("junk", 1, offset=-100)
    ),
    "one of them thrice": claims_to_hold(
        "junk", CONTENT["bin/app"][CHUNK : 2 * CHUNK] * 3 + CONTENT["bin/app"][3 * CHUNK :]
    ),
    "of another size": claims_to_hold("junk.conf", CONTENT["bin/app"][:CHUNK]),
}


@pytest.mark.parametrize("start", ["cold", "warm"])
@pytest.mark.parametrize("edit", POISON.values(), ids=POISON)
def test_poisoned_promise_heals(tmp_path: Path, start: str, edit: Any) -> None:
    """Image A came whole and its TOC lies about chunks; image B relies on them."""
    evil = poisoned(edit)
    with bench(tmp_path, start) as on:
        on.is_right(on.pull(evil, "example.com/evil:t", gaps=GapOptions(exact=True)), evil)
        outcome = on.pull(honest(), gaps=LEAN)
        on.is_right(outcome, honest())
        on.reopen()
        layer = evil.layers[0]
        for chunk in honest().layers[0].chunks:  # no liar is left
            places = on.store.find_chunks([raw(Digest(chunk.digest))])
            assert all(place.blob != layer.digest for place in places.values())
        again = on.pull(evil, "example.com/evil:t")  # nothing of A was wrong but its claims
        on.is_right(again, evil)
        assert again.receipt.bytes.needed == 0


@pytest.mark.parametrize("start", ["cold", "warm"])
def test_poisoned_layer_below_in_the_same_image(tmp_path: Path, start: str) -> None:
    """The lower layer comes whole and promises what the upper one needs."""
    lower = poisoned(claims_to_hold("junk", CONTENT["bin/app"])).layers[0]
    content = image([lower, victim()])
    with bench(tmp_path, start) as on:
        outcome = on.pull(content, gaps=GapOptions())
        on.is_right(outcome, content)


@pytest.mark.parametrize(
    "way", [LEAN, GapOptions(max_gap=0), GapOptions()], ids=["lean", "metered", "exact"]
)
def test_many_liars_cost_one_more_round(tmp_path: Path, way: GapOptions) -> None:
    """More than there are rounds of repairs.

    Chunks of a length of their own, so that all of them have rows.
    """
    with bench(tmp_path, "warm") as on:
        for number in range(12):
            junk = noise(60_000, 40 + number)
            junk = b"".join(
                junk[at : at + CHUNK - 150 * number] + b"ab" * 75 * number
                for at in range(0, 60_000, CHUNK)
            )
            lie = claims_to_hold("junk", CONTENT["bin/app"])
            evil = image(
                [chunked_layer(make_tar({"junk": junk[:60_000]}), cut=every(CHUNK), edit_toc=lie)]
            )
            on.pull(evil, f"example.com/evil:{number}", gaps=GapOptions(exact=True))
        outcome = on.pull(honest(), gaps=way)
        on.is_right(outcome, honest())
        spent = outcome.receipt.bytes
        assert spent.needed + spent.gap <= honest().layers[0].size
        assert not spent.wasted


def test_what_was_checked_goes_before_what_was_claimed(tmp_path: Path) -> None:
    """A row of a blob that came in parts was entered after hashing.

    One of a blob that came whole is its TOC's word.
    """
    with bench(tmp_path, "cold") as on:
        on.pull(honest(), gaps=GapOptions(max_gap=0))
        on.pull(
            poisoned(claims_to_hold("junk", CONTENT["bin/app"])),
            "example.com/evil:t",
            gaps=GapOptions(exact=True),
        )
        index_all(on.store)
        for chunk in honest().layers[0].chunks:
            for place in on.store.find_chunks([raw(Digest(chunk.digest))]).values():
                assert place.blob == honest().layers[0].digest


def index_all(store: Store) -> None:
    index_blobs(store, unindexed(store, DEFAULT_LIMITS), DEFAULT_LIMITS)


def test_poison_and_damage_at_once(tmp_path: Path) -> None:
    """Two sources of wrong chunks for one layer."""
    evil = poisoned(claims_to_hold("junk", CONTENT["bin/app"]))
    with bench(tmp_path, "warm") as on:
        on.pull(evil, "example.com/evil:t", gaps=GapOptions(exact=True))
        blobs = sorted(
            (on.store.folder / "blobs").glob("*-*"), key=lambda path: path.stat().st_size
        )
        for path in blobs[-2:]:
            data = bytearray(path.read_bytes())
            data[len(data) // 3] ^= 1
            path.write_bytes(data)
        on.reopen()
        on.is_right(on.pull(honest()), honest())


def test_poison_from_an_interrupted_layer(tmp_path: Path) -> None:
    """What is left of a layer that did not come whole makes no promise at all."""
    evil = poisoned(claims_to_hold("junk", CONTENT["bin/app"]))

    def change(blob: Any, at: int, piece: bytes) -> bytes:
        if blob.digest == evil.layers[0].digest and 50_000 < at < 60_000:
            raise IntegrityError("cut")
        return piece

    with bench(tmp_path, "cold") as on:
        with pytest.raises(IntegrityError, match="cut"):
            on.pull(evil, "example.com/evil:t", change=change)
        on.is_right(on.pull(honest(), gaps=GapOptions(max_gap=0)), honest())


def test_liar_is_kept_out_for_good(tmp_path: Path) -> None:
    """A third image that needs the same chunks fetches nothing in vain."""
    evil = poisoned(claims_to_hold("junk", CONTENT["bin/app"]))
    third = image(
        [
            chunked_layer(
                make_tar([Entry("x", CONTENT["bin/app"]), Entry("y", b"y" * 999)]), cut=every(CHUNK)
            )
        ]
    )
    with bench(tmp_path, "cold") as on:
        on.pull(evil, "example.com/evil:t", gaps=GapOptions(exact=True))
        on.is_right(on.pull(honest(), gaps=LEAN), honest())
        outcome = on.pull(third, "example.com/third:t", gaps=LEAN)
        on.is_right(outcome, third)
        assert outcome.receipt.bytes.wasted == 0
        needed = [chunk for chunk in third.layers[0].chunks if chunk.file == "y"]
        assert outcome.receipt.bytes.needed == total(
            [ByteRange(chunk.start, chunk.end) for chunk in needed]
        )


@pytest.mark.parametrize("start", IN_PARTS)
def test_two_hostile_layers(tmp_path: Path, start: str) -> None:
    """Neither leaves anything behind."""
    tars = [
        make_tar({"a": noise(9000, 30), "s": SHARED}),
        make_tar({"b": noise(9000, 31), "s": SHARED}),
    ]
    content = image(
        [chunked_layer(tar) for tar in tars],
        edit_config=lambda config: config["rootfs"].update(diff_ids=[sha256(b"x"), sha256(b"y")]),
    )
    with bench(tmp_path, start) as on:
        with pytest.raises(IntegrityError, match="unpacks to"):
            on.pull(content)
        for layer in content.layers:
            assert not on.store.covered(Digest(layer.digest))
