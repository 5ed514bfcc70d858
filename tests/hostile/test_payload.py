"""Contents that are not what the TOC, the tar-split or the config says."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.helpers.build.front import (
    Chunk,
    Json,
    Layer,
    chunked_layer,
    crc64,
    every,
    image,
    make_tar,
    sha256,
    zstd_layer,
)
from tests.helpers.harness.hostile import (
    CHUNK,
    IN_PARTS,
    INTEGRITY,
    MALFORMED,
    OLD,
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
from zchunked.errors import FormatError, IntegrityError
from zchunked.export.destination import parse_destination
from zchunked.export.write import export
from zchunked.maintenance.verify import verify
from zchunked.oci.digest import Digest

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
    "a frame that claims the right size": (
        lambda frame: zstandard.compress(unpacked(frame)[:-1] + b"!"),
        INTEGRITY,
    ),
    "a wrong checksum of the frame": (lambda frame: frame[:-1] + bytes([frame[-1] ^ 1]), MALFORMED),
    "a frame cut short": (lambda frame: frame[:-1], MALFORMED),
    "no frame": (lambda frame: bytes(len(frame)), MALFORMED),
    "a skippable frame": (
        lambda frame: b"\x50\x2a\x4d\x18" + (len(frame) - 8).to_bytes(4, "little") + frame[8:],
        INTEGRITY,
    ),
    "a skippable frame over its edge": (
        lambda frame: b"\x50\x2a\x4d\x18" + (len(frame) + 50).to_bytes(4, "little") + frame,
        MALFORMED,
    ),
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("make", "when_whole"), PAYLOADS.values(), ids=PAYLOADS)
def test_payload_that_is_not_what_all_promise(
    tmp_path: Path, start: str, make: Any, when_whole: Any
) -> None:
    def edit(chunk: Chunk, frame: bytes) -> bytes:
        return make(frame) if (chunk.file, chunk.at) == ("bin/app", CHUNK) else frame

    layer = victim(edit_payload=edit)
    liar = next(chunk for chunk in layer.chunks if (chunk.file, chunk.at) == ("bin/app", CHUNK))
    with bench(tmp_path, start) as on:
        message = on.lies_for_good(image([layer]), INTEGRITY, f"[{liar.start},")
        assert layer.digest in (message or layer.digest)
        if start in ("cold", "exact"):  # a blob that is no frames is malformed
            with pytest.raises((IntegrityError, FormatError), match="layer") as caught:
                on.pull(image([layer]), prove=True)
            assert caught.value.exit_code == when_whole


HOSTS: dict[str, dict[str, Any]] = {
    "no ranges": {"ranges": False},
    "several ranges": {"spans": 5},
    "pieces of 7 bytes": {"piece": 7},
    "pieces of a megabyte": {"piece": 1 << 20},
}


@pytest.mark.parametrize("start", IN_PARTS)
@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_wrong_payload_from_every_kind_of_host(
    tmp_path: Path, start: str, host: dict[str, Any]
) -> None:
    def edit(chunk: Chunk, frame: bytes) -> bytes:
        return squeezed(b"?" * chunk.usize) if chunk.file == "bin/app" else frame

    with bench(tmp_path, start) as on:
        content = image([victim(edit_payload=edit)])
        if not host.get("ranges", True):  # whole, and the registry's own
            on.is_identical(on.pull(content, **host), content)
        else:
            on.lies_for_good(content, INTEGRITY, **host)
        on.is_right(on.pull(honest(), "example.com/honest:t", **host), honest())


def test_chunk_that_is_wrong_is_asked_for_once_more(tmp_path: Path) -> None:
    def edit(chunk: Chunk, frame: bytes) -> bytes:
        return squeezed(b"?" * chunk.usize) if chunk.file == "etc/app.conf" else frame

    layer = victim(edit_payload=edit)
    start = next(chunk.start for chunk in layer.chunks if chunk.file == "etc/app.conf")
    with bench(tmp_path, "metered") as on:
        with pytest.raises(IntegrityError, match="twice"):
            on.pull(image([layer]))
        assert on.last is not None
        asked = [
            span for digest, spans in on.last.asked if digest == layer.digest for span in spans
        ]
        assert sum(span.start <= start < span.end for span in asked) == 2


@pytest.mark.parametrize("start", STARTS)
def test_payload_damaged_on_its_way_is_asked_for_again(tmp_path: Path, start: str) -> None:
    layer = victim()
    chunk = next(chunk for chunk in layer.chunks if (chunk.file, chunk.at) == ("bin/app", CHUNK))
    with bench(tmp_path, start) as on:
        outcome = on.pull(
            image([layer]),
            change=flips(layer.digest, range(chunk.start + 50, chunk.end - 50), times=1),
        )
        on.is_right(outcome, image([layer]))
        assert outcome.receipt.bytes.wasted > 0


@pytest.mark.parametrize("start", STARTS)
def test_payload_damaged_on_its_way_every_time(tmp_path: Path, start: str) -> None:
    layer = victim()
    chunk = next(chunk for chunk in layer.chunks if (chunk.file, chunk.at) == ("bin/app", CHUNK))
    with bench(tmp_path, start) as on:
        on.refused_for_good(
            image([layer]),
            INTEGRITY,
            change=flips(layer.digest, range(chunk.start + 50, chunk.end - 50)),
        )


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("at", [0, 20, -1], ids=["magic", "middle", "checksum"])
def test_header_frame_damaged_on_its_way_is_asked_for_again(
    tmp_path: Path, start: str, generation: Any, at: Any
) -> None:
    """Where no tar-split can be trusted the frames between the payloads come too.

    No digest vouches for them alone.
    """
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
def test_toc_whose_lie_is_seen_in_the_content(tmp_path: Path, start: str, edit: Any) -> None:
    content = image([victim(edit_toc=edit)])
    with bench(tmp_path, start) as on:
        on.lies_for_good(content, INTEGRITY)


@pytest.mark.parametrize("start", STARTS)
def test_data_that_is_called_a_hole(tmp_path: Path, start: str) -> None:
    """With the digest of zeros, so it would not be fetched.

    Too few bytes for its frames to come whole.
    """
    edit = sets("bin/app", 1, chunkType="zeros", chunkDigest=sha256(bytes(CHUNK)))
    with bench(tmp_path, start) as on:
        on.lies_for_good(image([victim(edit_toc=edit)]), INTEGRITY, "checksum in the tar-split")


# ── row 38: odd and no harm ──

ODD: dict[str, Callable[[bytes], bytes]] = {
    "two frames": lambda data: squeezed(data[:7]) + squeezed(data[7:]),
    "a frame for each byte": lambda data: (
        b"".join(squeezed(data[at : at + 1]) for at in range(20)) + squeezed(data[20:])
    ),
    "empty frames around": lambda data: squeezed(b"") + squeezed(data) + squeezed(b""),
    "skippable frames around": lambda data: (
        b"\x5a\x2a\x4d\x18\x03\x00\x00\x00abc" + squeezed(data) + b"\x50\x2a\x4d\x18" + bytes(4)
    ),
    "content size in the frame": zstandard.compress,
    "no checksum": lambda data: zstandard.ZstdCompressor(write_checksum=False).compress(data),
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_odd_but_harmless_frames(tmp_path: Path, start: str, make: Any) -> None:
    layer = victim(edit_payload=lambda chunk, frame: make(unpacked(frame)))
    with bench(tmp_path, start) as on:
        on.is_right(on.pull(image([layer])), image([layer]))
        on.is_right(on.pull(honest()), honest())


# ── rows 36 and 40: the diff ID judges ──


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("generation", [1, 3, 4])
def test_diff_id_of_another_tar(tmp_path: Path, start: str, generation: Any) -> None:
    """As left by writers that dropped what follows the archive's end."""

    def edit(config: Json) -> None:
        config["rootfs"]["diff_ids"] = [sha256(b"another tar")]

    content = image([victim(generation=generation)], edit_config=edit)
    with bench(tmp_path, start) as on:
        message = on.refused_for_good(content, INTEGRITY, "writer's bug", prove=True)
        assert content.layers[0].digest in message


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    "kind",
    [zstd_layer, lambda tar: Layer(tar, tar, "application/vnd.oci.image.layer.v1.tar")],
    ids=["zstd", "tar"],
)
def test_diff_id_of_another_tar_in_a_plain_layer(tmp_path: Path, start: str, kind: Any) -> None:
    content = image(
        [kind(b"anything" * 999)],
        edit_config=lambda config: config["rootfs"].update(diff_ids=[sha256(b"x")]),
    )
    with bench(tmp_path, start) as on:
        on.refused_for_good(content, INTEGRITY, "unpacks to", prove=True)


@pytest.mark.parametrize("start", ["cold", "exact"])
def test_diff_id_of_another_tar_is_caught_when_a_tar_is_first_made(
    tmp_path: Path, start: str
) -> None:
    """The blob is the registry's own, so the pull is right; what the config says of it is not."""
    content = image(
        [victim()], edit_config=lambda config: config["rootfs"].update(diff_ids=[sha256(b"x")])
    )
    with bench(tmp_path, start) as on:
        outcome = on.pull(content)
        on.is_identical(outcome, content)
        assert outcome.image is not None
        for name in ("docker-archive", "oci"):
            to = parse_destination(f"{name}:{tmp_path / name}")
            if name == "oci":  # the registry's own layout: nothing of it was made here
                export(on.store, outcome.image, to)
                continue
            with pytest.raises(IntegrityError, match="unpacks to") as caught:
                export(on.store, outcome.image, to)
            assert caught.value.exit_code == INTEGRITY
            assert not (tmp_path / name).exists()
        assert [lie.layer for lie in verify(on.store).lies] == [content.layers[0].digest]


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
def test_ambiguity_attack(tmp_path: Path, start: str) -> None:
    content = image([ambiguous()])
    with bench(tmp_path, start) as on:
        on.lies_for_good(content, INTEGRITY, "unpacks to")


@pytest.mark.parametrize("start", STARTS)
def test_ambiguity_attack_the_other_way_round(tmp_path: Path, start: str) -> None:
    """Here the config commits to what the TOC says.

    So whoever takes the frames at their word is told.
    """
    layer = ambiguous()
    good, evil = noise(5000, 8), noise(5000, 9)
    seen = make_tar({"bin/login": evil, "share/doc": good, "shared": SHARED})
    content = image(
        [layer], edit_config=lambda config: config["rootfs"].update(diff_ids=[sha256(seen)])
    )
    with bench(tmp_path, start) as on:
        if start in ("cold", "exact"):
            on.refused_for_good(content, INTEGRITY, "unpacks to", prove=True)
        else:
            outcome = on.pull(content)
            on.is_right(outcome, image([Layer(layer.blob, seen, layer.media_type)]))


def test_refusal_leaves_other_images_ready_for_export(tmp_path: Path) -> None:
    """One hostile image must not take from a device without network what it has."""
    with bench(tmp_path, "warm") as on:
        on.partial(honest())
        with pytest.raises(IntegrityError):
            on.pull(image([ambiguous()]), "example.com/evil:t")
        on.reopen()
        for layer in (old_image().layers[0], honest().layers[0]):
            assert on.store.proof(Digest(layer.digest), Digest(layer.diff_id)) is not None


@pytest.mark.parametrize("start", ["cold", "metered"])
@pytest.mark.parametrize("generation", [1, 4])
def test_honest_layer_with_a_wrong_diff_id_in_another_image(
    tmp_path: Path, start: str, generation: Any
) -> None:
    """The layer is here and proved; who lies is the other image, and it alone goes."""
    content = image([victim(generation=generation)])
    evil = image(
        content.layers, edit_config=lambda config: config["rootfs"].update(diff_ids=[sha256(b"x")])
    )
    with bench(tmp_path, start) as on:
        on.is_right(on.pull(content), content)
        with pytest.raises(IntegrityError, match="unpacks to"):
            on.pull(evil, "example.com/evil:t", prove=True)
        on.reopen()
        layer = content.layers[0]
        assert on.store.proof(Digest(layer.digest), Digest(layer.diff_id)) is not None
        again = on.pull(content)
        assert again.receipt.bytes.needed == again.receipt.bytes.wasted == 0
        on.is_right(on.pull(content), content)
