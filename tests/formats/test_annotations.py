"""Where TOC and tar-split lie, told by annotations that anybody may have written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.reals import Real, reals
from tests.helpers.build.front import (
    LAYER,
    OLD_PREFIX,
    PREFIX,
    Layer,
    chunked_layer,
    gzip_layer,
    make_tar,
    tar_layer,
    zstd_layer,
)
from tests.helpers.build.mutants import brief
from zchunked.errors import FormatError, UnsupportedLayerError
from zchunked.formats.annotations import kind_of, locate
from zchunked.limits import Limits
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange

TAR = make_tar({"etc/": b"", "etc/hello": b"hello\n" * 500})
STARGZ = "containerd.io/snapshot/stargz/toc.digest"
DIGEST = "sha256:" + "0" * 64
GOOD = chunked_layer(TAR)


def described(layer: Layer, media_type: str | None = None, **changes: str | None) -> Descriptor:
    """The layer's descriptor with annotations changed by the last part of their name.

    None takes one away.
    """
    marks = dict(layer.annotations)
    prefix = OLD_PREFIX if OLD_PREFIX + "manifest-checksum" in marks else PREFIX
    for name, text in changes.items():
        key = prefix + name.replace("_", "-")
        marks.pop(key, None)
        if text is not None:
            marks[key] = text
    return Descriptor(media_type or layer.media_type, Digest(layer.digest), layer.size, marks)


@pytest.mark.parametrize("real", reals(), ids=str)
def test_finds_what_real_writers_wrote(real: Real) -> None:
    found, toc = locate(real.descriptor), real.truths["toc"]
    tar_split = real.truths.get("tar_split")
    assert found.toc.span == ByteRange(toc["offset"], toc["offset"] + toc["length"])
    assert (found.toc.decoded_bytes, found.toc_digest) == (toc["ulen"], toc["digest"])
    assert (found.tarsplit is None) == (tar_split is None)
    if found.tarsplit and tar_split:
        assert found.tarsplit.span == ByteRange(
            tar_split["offset"], tar_split["offset"] + tar_split["length"]
        )
        assert found.tarsplit.decoded_bytes == tar_split["ulen"]
        assert found.metadata == ByteRange(found.toc.span.start, found.tarsplit.span.end)
    else:
        assert found.metadata == found.toc.span
    assert kind_of(real.descriptor) == "zstd:chunked"


@pytest.mark.parametrize(
    ("generation", "parts", "vouched"), [(1, 1, False), (2, 1, False), (3, 2, True), (4, 2, False)]
)
def test_all_four_generations(generation: int, parts: int, vouched: bool) -> None:
    found = locate(described(chunked_layer(TAR, generation=generation)))  # type: ignore[arg-type]
    assert 1 + (found.tarsplit is not None) == parts
    assert (found.tarsplit_digest is not None) == vouched, (
        "G4 says it in the TOC, before G3 nobody does"
    )


def test_parts_that_lie_apart_are_not_bought_in_one_range() -> None:
    found = locate(described(GOOD, tarsplit_position="8:10:100"))
    assert found.metadata == found.toc.span
    assert found.tarsplit is not None


# ── layers that come whole ──


@pytest.mark.parametrize(("layer", "kind", "reason"), [
    (tar_layer(TAR), "plain", "tar layer without a table of contents"),
    (gzip_layer(TAR), "plain", "gzip layer without a table of contents"),
    (zstd_layer(TAR), "plain", "zstd layer without a table of contents"),
    (gzip_layer(TAR, annotations={STARGZ: DIGEST}), "estargz",
     "eStargz layers are not read in parts yet"),
    (zstd_layer(TAR, annotations={STARGZ: DIGEST}), "estargz", "eStargz marks on a zstd layer"),
    (gzip_layer(TAR, annotations=GOOD.annotations), "plain",
     "gzip layer without a table of contents"),
    (tar_layer(TAR, annotations=GOOD.annotations), "plain",
     "tar layer without a table of contents"),
])  # fmt: skip
def test_other_kinds_of_layer_come_whole_with_the_reason(
    layer: Layer, kind: str, reason: str
) -> None:
    assert kind_of(described(layer)) == kind
    with pytest.raises(UnsupportedLayerError, match=reason):
        locate(described(layer))


@pytest.mark.parametrize("media_type", ["", "\n", "tar+\x1b[31m", "application/" + "x" * 9999, "é"])
def test_a_strange_media_type_is_quoted_and_cut(media_type: str) -> None:
    with pytest.raises(UnsupportedLayerError) as caught:
        locate(described(tar_layer(TAR), media_type or "?"))
    assert str(caught.value).isprintable()
    brief(caught.value)


def test_encrypted_layers_are_not_looked_into() -> None:
    with pytest.raises(UnsupportedLayerError, match="encrypted layer"):
        locate(described(GOOD, LAYER + "+zstd+encrypted"))


def test_a_layer_with_both_marks_comes_whole() -> None:
    both = Descriptor(
        GOOD.media_type, Digest(GOOD.digest), GOOD.size, GOOD.annotations | {STARGZ: DIGEST}
    )
    with pytest.raises(UnsupportedLayerError, match="as eStargz and as zstd:chunked"):
        locate(both)


@pytest.mark.parametrize("missing", ["manifest_checksum", "manifest_position"])
def test_half_of_the_annotations_is_none(missing: str) -> None:
    with pytest.raises(UnsupportedLayerError, match="not both"):
        locate(described(GOOD, **{missing: None}))


SLOPPY = [
    "", "1", "8:9", "8:9:9", "8:9:9:1:1", "8:9:9:1junk", " 8:9:9:1", "8:9:9:1 ", "8:9:9:1\n",
        "+8:9:9:1",
    "-8:9:9:1", "8:-9:9:1",
    "0x8:9:9:1", "8:9_0:9:1", "8:9.0:9:1", "8:9e1:9:1", "٨:9:9:1", "8:9:９:1", "8::9:1",
        f"8:9:{2**63}:1",
    "8:9:" + "9" * 5000 + ":1",
]  # fmt: skip


@pytest.mark.parametrize("text", SLOPPY)
def test_sloppy_numbers_are_not_guessed_at(text: str) -> None:
    with pytest.raises(UnsupportedLayerError, match="expected decimal numbers"):
        locate(described(GOOD, manifest_position=text))
    with pytest.raises(UnsupportedLayerError, match="expected decimal numbers"):
        locate(
            described(
                GOOD,
                tarsplit_position=text.removesuffix(":1") if text.count(":") == 3 else text + "x",
            )
        )


@pytest.mark.parametrize("kind", [0, 2, 10])
def test_an_unknown_type_of_table_comes_whole(kind: int) -> None:
    with pytest.raises(UnsupportedLayerError, match=f"type {kind}"):
        locate(described(GOOD, manifest_position=f"8:9:9:{kind}"))


def test_a_table_above_our_limits_comes_whole_before_it_is_asked_for() -> None:
    limits = Limits(toc_bytes=100, tarsplit_bytes=100, tarsplit_decoded_bytes=1000)
    for text in ("8:101:9:1", "8:9:101:1"):
        with pytest.raises(UnsupportedLayerError, match="above the limits"):
            locate(described(GOOD, manifest_position=text), limits)
    for text in ("50:101:9", "50:9:1001"):
        with pytest.raises(UnsupportedLayerError, match="above the limits"):
            locate(described(GOOD, manifest_position="8:9:9:1", tarsplit_position=text), limits)


# ── layers that lie ──


@pytest.mark.parametrize(
    "position",
    ["0:9", "7:9", "8:0", f"8:{GOOD.size}", f"{GOOD.size}:1", f"{2**63 - 1}:{2**63 - 1}"],
)
def test_a_place_outside_of_the_blob_is_a_lie(position: str) -> None:
    with pytest.raises(FormatError, match="is said to lie at"):
        locate(described(GOOD, manifest_position=f"{position}:9:1"))
    with pytest.raises(FormatError, match="is said to lie at"):
        locate(described(GOOD, tarsplit_position=f"{position}:9"))


@pytest.mark.parametrize("tarsplit", ["100:10:9", "109:10:9", "91:10:9", "95:50:9"])
def test_parts_on_top_of_each_other_are_a_lie(tarsplit: str) -> None:
    with pytest.raises(FormatError, match="overlap"):
        locate(described(GOOD, manifest_position="100:10:9:1", tarsplit_position=tarsplit))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        DIGEST.upper(),
        "sha512:" + "0" * 128,
        "sha256:../../../../etc/passwd",
        DIGEST + "\n",
    ],
)
def test_a_digest_of_another_form_is_a_lie(text: str) -> None:
    with pytest.raises(FormatError):
        locate(described(GOOD, manifest_checksum=text))
    with pytest.raises(FormatError):
        locate(described(GOOD, tarsplit_checksum=text))


NUMBERS = st.one_of(
    st.integers(0, 2 * GOOD.size), st.integers(0, 2**64), st.text("0123456789:+-_ x", max_size=4)
).map(str)
TEXTS = st.one_of(
    st.text(),
    st.lists(NUMBERS, max_size=5).map(":".join),
    st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256:{raw.hex()}"),
)
KEYS = st.sampled_from([
    *(prefix + name for prefix in (PREFIX, OLD_PREFIX) for name in (
        "manifest-checksum", "manifest-position", "tarsplit-position", "tarsplit-checksum",
    )), STARGZ,
])  # fmt: skip
MEDIA_TYPES = st.sampled_from([LAYER, LAYER + "+zstd", LAYER + "+gzip", "+zstd", ""]) | st.text()


@given(st.dictionaries(KEYS, TEXTS), st.booleans(), MEDIA_TYPES)
def test_whatever_the_annotations_a_place_in_the_blob_or_one_of_two_errors(
    marks: dict[str, str], on_top: bool, media_type: str
) -> None:
    if on_top:
        media_type, marks = GOOD.media_type, GOOD.annotations | marks
    layer = Descriptor(media_type, Digest(GOOD.digest), GOOD.size, marks)
    assert kind_of(layer) in ("zstd:chunked", "estargz", "plain")
    try:
        found = locate(layer)
    except (FormatError, UnsupportedLayerError) as error:
        brief(error)
        return
    for part in filter(None, (found.toc, found.tarsplit)):
        assert 8 <= part.span.start < part.span.end <= GOOD.size
        assert 0 <= part.decoded_bytes <= Limits().tarsplit_decoded_bytes
    assert 8 <= found.metadata.start < found.metadata.end <= GOOD.size
