"""Contents that are not what the TOC, the tar-split or the config says; and promises that poison the store."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from tests.helpers.build import Chunk, Entry, Image, Json, Layer, chunked_layer, crc64, every, image, make_tar, sha256, zstd_layer
from tests.helpers.hostile import (
    CHUNK,
    CONTENT,
    IN_PARTS,
    INTEGRITY,
    MALFORMED,
    OLD,
    SECRET,
    SHARED,
    STARTS,
    Edit,
    bench,
    both,
    entry_of,
    flips,
    honest,
    moves,
    noise,
    old_image,
    sets,
    victim,
)
from zchunked.digest import Digest, raw
from zchunked.errors import IntegrityError
from zchunked.ranges import ByteRange, total
from zchunked.schedule import Frugality

# ── row 37: a range that does not hold what the TOC says ──


def squeezed(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress(data)


def unpacked(frame: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(frame)


PAYLOADS: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "one bit of the content": (lambda frame: squeezed(unpacked(frame)[:-1] + b"!"), INTEGRITY),
    "too few bytes": (lambda frame: squeezed(unpacked(frame)[:-1]), INTEGRITY),
    "too many bytes": (lambda frame: squeezed(unpacked(frame) + b"!"), INTEGRITY),
    "nothing": (lambda frame: squeezed(b""), INTEGRITY),
    "a bomb": (lambda frame: squeezed(bytes(64 << 20)), INTEGRITY),
    "a frame that claims the right size": (lambda frame: zstandard.compress(unpacked(frame)[:-1] + b"!"), INTEGRITY),
    "a wrong checksum of the frame": (lambda frame: frame[:-1] + bytes([frame[-1] ^ 1]), MALFORMED),
    "a frame cut short": (lambda frame: frame[:-1], MALFORMED),
    "no frame": (lambda frame: bytes(len(frame)), MALFORMED),
    "a skippable frame": (lambda frame: b"\x50\x2a\x4d\x18" + (len(frame) - 8).to_bytes(4, "little") + frame[8:], INTEGRITY),
    "a skippable frame over its edge": (lambda frame: b"\x50\x2a\x4d\x18" + (len(frame) + 50).to_bytes(4, "little") + frame, MALFORMED),
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("make", "when_whole"), PAYLOADS.values(), ids=PAYLOADS)
def test_payload_that_is_not_what_all_promise(tmp_path, start, make, when_whole):
    def edit(chunk: Chunk, frame: bytes) -> bytes:
        return make(frame) if (chunk.file, chunk.at) == ("bin/app", CHUNK) else frame

    layer = victim(edit_payload=edit)
    liar = next(chunk for chunk in layer.chunks if (chunk.file, chunk.at) == ("bin/app", CHUNK))
    with bench(tmp_path, start) as on:
        if start == "cold":  # whole, so what judges is the diff ID; a blob that is no frames is malformed
            on.refused(image([layer]), when_whole, "layer")
        else:
            message = on.refused(image([layer]), INTEGRITY, f"[{liar.start},")
            assert layer.digest in message


def test_chunk_that_is_wrong_is_asked_for_once_more(tmp_path):
    def edit(chunk: Chunk, frame: bytes) -> bytes:
        return squeezed(b"?" * chunk.usize) if chunk.file == "etc/app.conf" else frame

    layer = victim(edit_payload=edit)
    start = next(chunk.start for chunk in layer.chunks if chunk.file == "etc/app.conf")
    with bench(tmp_path, "metered") as on:
        with pytest.raises(IntegrityError, match="twice"):
            on.pull(image([layer]))
        assert on.last is not None
        asked = [span for digest, spans in on.last.asked if digest == layer.digest for span in spans]
        assert sum(span.start <= start < span.end for span in asked) == 2


@pytest.mark.parametrize("start", STARTS)
def test_payload_damaged_on_its_way_is_asked_for_again(tmp_path, start):
    layer = victim()
    chunk = next(chunk for chunk in layer.chunks if (chunk.file, chunk.at) == ("bin/app", CHUNK))
    with bench(tmp_path, start) as on:
        outcome = on.pull(image([layer]), change=flips(layer.digest, range(chunk.start + 50, chunk.end - 50), times=1))
        on.is_right(outcome, image([layer]))
        assert outcome.receipt.bytes.wasted > 0


@pytest.mark.parametrize("start", STARTS)
def test_payload_damaged_on_its_way_every_time(tmp_path, start):
    layer = victim()
    chunk = next(chunk for chunk in layer.chunks if (chunk.file, chunk.at) == ("bin/app", CHUNK))
    with bench(tmp_path, start) as on:
        on.refused(image([layer]), INTEGRITY, change=flips(layer.digest, range(chunk.start + 50, chunk.end - 50)))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("at", [0, 20, -1], ids=["magic", "middle", "checksum"])
def test_header_frame_damaged_on_its_way_is_asked_for_again(tmp_path, start, generation, at):
    """Where no tar-split can be trusted the frames between the payloads are fetched, which no digest vouches for alone."""
    layer = victim(generation=generation)
    first, end = layer.gaps[2]
    where = range(first + at, first + at + 1) if at >= 0 else range(end + at, end)
    with bench(tmp_path, start) as on:
        outcome = on.pull(image([layer]), change=flips(layer.digest, where, times=1))
        on.is_right(outcome, image([layer]))
        assert outcome.receipt.bytes.wasted > 0


# ── rows 37 and 39 in the TOC: a layer that comes whole has no use for these ──

LIES: dict[str, Edit] = {
    "range with bytes of the next header": moves("bin/app", endOffset=10),
    "range without its last byte": moves("bin/app", endOffset=-1),
    "range that begins late": moves("etc/app.conf", offset=1),
    "range of the header before": moves("bin/app", offset=-20),
    "range of two chunks": moves("bin/app", 1, offset=1),
    "file digest wrong, chunk digests right": sets("bin/app", digest=sha256(b"x")),
    "chunk digest wrong, file digest right": sets("bin/app", 1, chunkDigest=sha256(b"x")),
    "first chunk's digest wrong": sets("bin/app", chunkDigest=sha256(b"x")),
    "digest of a small file wrong": sets("etc/app.conf", digest=sha256(b"x")),
    "digest of a file that is here": sets("etc/app.conf", digest=sha256(OLD)),
    "chunks swapped": lambda toc: both(
        sets("bin/app", 1, chunkDigest=entry_of(toc, "bin/app", 2)["chunkDigest"]),
        sets("bin/app", 2, chunkDigest=entry_of(toc, "bin/app", 1)["chunkDigest"]),
    )(toc),
}  # fmt: skip


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("edit", LIES.values(), ids=LIES)
def test_toc_whose_lie_is_seen_in_the_content(tmp_path, start, edit):
    content = image([victim(edit_toc=edit)])
    with bench(tmp_path, start) as on:
        if start == "cold":
            on.whole(content, "it costs little more than its parts")
            return
        on.refused(content, INTEGRITY)


@pytest.mark.parametrize("start", STARTS)
def test_data_that_is_called_a_hole(tmp_path, start):
    """With the digest of zeros, so it would not be fetched. Too few bytes for its frames to come whole."""
    edit = sets("bin/app", 1, chunkType="zeros", chunkDigest=sha256(bytes(CHUNK)))
    with bench(tmp_path, start) as on:
        on.refused(image([victim(edit_toc=edit)]), INTEGRITY, "checksum in the tar-split")


# ── row 38: odd and no harm ──

ODD: dict[str, Callable[[bytes], bytes]] = {
    "two frames": lambda data: squeezed(data[:7]) + squeezed(data[7:]),
    "a frame for each byte": lambda data: b"".join(squeezed(data[at : at + 1]) for at in range(20)) + squeezed(data[20:]),
    "empty frames around": lambda data: squeezed(b"") + squeezed(data) + squeezed(b""),
    "skippable frames around": lambda data: b"\x5a\x2a\x4d\x18\x03\x00\x00\x00abc" + squeezed(data) + b"\x50\x2a\x4d\x18" + bytes(4),
    "content size in the frame": zstandard.compress,
    "no checksum": lambda data: zstandard.ZstdCompressor(write_checksum=False).compress(data),
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_odd_but_harmless_frames(tmp_path, start, make):
    layer = victim(edit_payload=lambda chunk, frame: make(unpacked(frame)))
    with bench(tmp_path, start) as on:
        on.is_right(on.pull(image([layer])), image([layer]))
        on.is_right(on.pull(honest()), honest())


# ── rows 36 and 40: the diff ID judges ──


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("generation", [1, 3, 4])
def test_diff_id_of_another_tar(tmp_path, start, generation):
    """As left by writers that dropped what follows the archive's end."""

    def edit(config: Json) -> None:
        config["rootfs"]["diff_ids"] = [sha256(b"another tar")]

    content = image([victim(generation=generation)], edit_config=edit)
    with bench(tmp_path, start) as on:
        message = on.refused(content, INTEGRITY, "writer's bug")
        assert content.layers[0].digest in message


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("kind", [zstd_layer, lambda tar: Layer(tar, tar, "application/vnd.oci.image.layer.v1.tar")], ids=["zstd", "tar"])
def test_diff_id_of_another_tar_in_a_plain_layer(tmp_path, start, kind):
    content = image([kind(b"anything" * 999)], edit_config=lambda config: config["rootfs"].update(diff_ids=[sha256(b"x")]))
    with bench(tmp_path, start) as on:
        on.refused(content, INTEGRITY, "unpacks to")


def ambiguous() -> Layer:
    """The frames hold one program, TOC and tar-split describe another, and every digest is right.

    Two files of one size have swapped places in the TOC and in the tar-split's checksums.
    """
    good, evil = noise(5000, 8), noise(5000, 9)
    tar = make_tar({"bin/login": good, "share/doc": evil, "shared": SHARED})
    swap = {"bin/login": evil, "share/doc": good}

    def edit_toc(toc: Json) -> None:
        one, other = entry_of(toc, "bin/login"), entry_of(toc, "share/doc")
        for key in ("digest", "offset", "endOffset"):
            one[key], other[key] = other[key], one[key]

    def edit_lines(lines: list[Json]) -> None:
        for line in lines:
            if line.get("name") in swap:
                line["payload"] = base64.b64encode(crc64(swap[line["name"]])).decode()

    return chunked_layer(tar, cut=every(CHUNK), edit_toc=edit_toc, edit_tar_split=edit_lines)


@pytest.mark.parametrize("start", STARTS)
def test_ambiguity_attack(tmp_path, start):
    content = image([ambiguous()])
    with bench(tmp_path, start) as on:
        if start == "cold":
            on.whole(content, "it costs little more than its parts")
        else:
            on.refused(content, INTEGRITY, "unpacks to")


@pytest.mark.parametrize("start", STARTS)
def test_ambiguity_attack_the_other_way_round(tmp_path, start):
    """Here the config commits to what the TOC says, so whoever takes the frames at their word is told."""
    layer = ambiguous()
    good, evil = noise(5000, 8), noise(5000, 9)
    seen = make_tar({"bin/login": evil, "share/doc": good, "shared": SHARED})
    content = image([layer], edit_config=lambda config: config["rootfs"].update(diff_ids=[sha256(seen)]))
    with bench(tmp_path, start) as on:
        if start == "cold":
            on.refused(content, INTEGRITY, "unpacks to")
        else:
            outcome = on.pull(content)
            on.is_right(outcome, image([Layer(layer.blob, seen, layer.media_type)]))


def test_refusal_leaves_other_images_ready_for_export(tmp_path):
    """One hostile image must not take from a device without network what it has."""
    with bench(tmp_path, "warm") as on:
        on.partial(honest())
        with pytest.raises(IntegrityError):
            on.pull(image([ambiguous()]), "example.com/evil:t")
        on.reopen()
        for layer in (old_image().layers[0], honest().layers[0]):
            assert on.store.proof(Digest(layer.digest), Digest(layer.diff_id)) is not None


# ── promises that poison ──


def poisoned(edit: Edit, **hooks: Any) -> Image:
    """Its files are junk, of the sizes of the victim's; blob digest and diff ID are right, so it may come whole."""
    files = {"junk": noise(60_000, 20), "junk.conf": noise(len(SECRET), 21), "junk.zeros": bytes(100) + noise(5000, 22)}
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
    "in the wrong range": both(claims_to_hold("junk", CONTENT["bin/app"]), moves("junk", 1, offset=-100)),
    "one of them thrice": claims_to_hold("junk", CONTENT["bin/app"][CHUNK : 2 * CHUNK] * 3 + CONTENT["bin/app"][3 * CHUNK :]),
    "of another size": claims_to_hold("junk.conf", CONTENT["bin/app"][:CHUNK]),
}


@pytest.mark.parametrize("start", ["cold", "warm"])
@pytest.mark.parametrize("edit", POISON.values(), ids=POISON)
def test_poisoned_promise_heals(tmp_path, start, edit):
    """Image A came whole and its TOC lies about chunks; image B relies on them."""
    evil = poisoned(edit)
    with bench(tmp_path, start) as on:
        on.is_right(on.pull(evil, "example.com/evil:t", frugality=Frugality(exact=True)), evil)
        outcome = on.pull(honest())
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
def test_poisoned_layer_below_in_the_same_image(tmp_path, start):
    """The lower layer comes whole and promises what the upper one needs."""
    lower = poisoned(claims_to_hold("junk", CONTENT["bin/app"])).layers[0]
    content = image([lower, victim()])
    with bench(tmp_path, start) as on:
        outcome = on.pull(content)
        on.is_right(outcome, content)


def test_poison_and_damage_at_once(tmp_path):
    """Two sources of wrong chunks for one layer."""
    evil = poisoned(claims_to_hold("junk", CONTENT["bin/app"]))
    with bench(tmp_path, "warm") as on:
        on.pull(evil, "example.com/evil:t", frugality=Frugality(exact=True))
        blobs = sorted((on.store.folder / "blobs").glob("*-*"), key=lambda path: path.stat().st_size)
        for path in blobs[-2:]:
            data = bytearray(path.read_bytes())
            data[len(data) // 3] ^= 1
            path.write_bytes(data)
        on.reopen()
        on.is_right(on.pull(honest()), honest())


def test_poison_from_an_interrupted_layer(tmp_path):
    """What is left of a layer that did not come whole makes no promise at all."""
    evil = poisoned(claims_to_hold("junk", CONTENT["bin/app"]))

    def change(blob: Any, at: int, piece: bytes) -> bytes:
        if blob.digest == evil.layers[0].digest and 50_000 < at < 60_000:
            raise IntegrityError("cut")
        return piece

    with bench(tmp_path, "cold") as on:
        with pytest.raises(IntegrityError, match="cut"):
            on.pull(evil, "example.com/evil:t", change=change)
        on.is_right(on.pull(honest(), frugality=Frugality(max_gap=0)), honest())


def test_liar_is_kept_out_for_good(tmp_path):
    """A third image that needs the same chunks fetches nothing in vain."""
    evil = poisoned(claims_to_hold("junk", CONTENT["bin/app"]))
    third = image([chunked_layer(make_tar([Entry("x", CONTENT["bin/app"]), Entry("y", b"y" * 999)]), cut=every(CHUNK))])
    with bench(tmp_path, "cold") as on:
        on.pull(evil, "example.com/evil:t", frugality=Frugality(exact=True))
        on.is_right(on.pull(honest()), honest())
        outcome = on.pull(third, "example.com/third:t")
        on.is_right(outcome, third)
        assert outcome.receipt.bytes.wasted == 0
        needed = [chunk for chunk in third.layers[0].chunks if chunk.file == "y"]
        assert outcome.receipt.bytes.needed == total([ByteRange(chunk.start, chunk.end) for chunk in needed])


@pytest.mark.parametrize("start", IN_PARTS)
def test_two_hostile_layers(tmp_path, start):
    """Neither leaves anything behind."""
    tars = [make_tar({"a": noise(9000, 30), "s": SHARED}), make_tar({"b": noise(9000, 31), "s": SHARED})]
    content = image(
        [chunked_layer(tar) for tar in tars],
        edit_config=lambda config: config["rootfs"].update(diff_ids=[sha256(b"x"), sha256(b"y")]),
    )
    with bench(tmp_path, start) as on:
        with pytest.raises(IntegrityError, match="unpacks to"):
            on.pull(content)
        for layer in content.layers:
            assert not on.store.covered(Digest(layer.digest))
