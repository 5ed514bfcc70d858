"""Annotations that lie about TOC and tar-split, or name what no path may be built from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.front import PREFIX, Image, Json, image
from tests.helpers.harness.hostile import (
    BAD_DIGESTS,
    COLD_AND_WARM,
    MALFORMED,
    STARTS,
    bench,
    honest,
    victim,
)
from zchunked.limits import Limits
from zchunked.pull.planning.whole import NOTHING_STORED

TOC_POSITION, TOC_DIGEST = PREFIX + "manifest-position", PREFIX + "manifest-checksum"
SPLIT_POSITION, SPLIT_DIGEST = PREFIX + "tarsplit-position", PREFIX + "tarsplit-checksum"
STARGZ = "containerd.io/snapshot/stargz/toc.digest"


def annotated(**hooks: Any) -> Image:
    return image([victim(**hooks)])


def marks(**values: str | None) -> Callable[[dict[str, str]], None]:
    """An `edit_annotations`: None takes one away."""
    names = {
        "toc": TOC_POSITION,
        "toc_digest": TOC_DIGEST,
        "split": SPLIT_POSITION,
        "split_digest": SPLIT_DIGEST,
        "stargz": STARGZ,
    }

    def edit(annotations: dict[str, str]) -> None:
        for key, value in values.items():
            if value is None:
                del annotations[names[key]]
            else:
                annotations[names[key]] = value

    return edit


# ── rows 3 to 7: annotations ──

LEFT_OUT: dict[str, tuple[Callable[[dict[str, str]], None], str]] = {
    "digest without position": (marks(toc=None), "not both"),
    "position without digest": (marks(toc_digest=None), "not both"),
    "position of type 2": (marks(toc="100:100:100:2"), "type 2"),
    "position of type 0": (marks(toc="100:100:100:0"), "type 0"),
    "stargz too": (marks(stargz="sha256:" + "a" * 64), "eStargz"),
    "tar-split position is junk": (marks(split="1:2:3:4"), "tarsplit-position"),
} | {
    f"position {text!r}": (marks(toc=text), "manifest-position")
    for text in [
        "", ":::", "1:2:3", "1:2:3:1:9", "1:2:3:1junk", " 1:2:3:1", "1:2:3:1\n", "+1:2:3:1",
        "-1:2:3:1", "1_0:2:3:1", "0x10:2:3:1", "1:2:3:1.0", "١:2:3:1", "9223372036854775808:2:3:1",
        "1:2:9223372036854775808:1", "99999999999999999999:2:3:1", "1:2:3:\x1b[2J", "9" * 100_000,
    ]
}  # fmt: skip


@pytest.mark.parametrize("start", COLD_AND_WARM)
@pytest.mark.parametrize(("edit", "words"), LEFT_OUT.values(), ids=[name[:60] for name in LEFT_OUT])
def test_annotations_that_say_nothing_usable(
    tmp_path: Path, start: str, edit: Any, words: Any
) -> None:
    with bench(tmp_path, start) as on:
        on.whole(annotated(edit_annotations=edit), words)


def overlapping(annotations: dict[str, str]) -> None:
    offset, length, usize, _ = annotations[TOC_POSITION].split(":")
    annotations[SPLIT_POSITION] = f"{int(offset) + int(length) - 1}:10:{usize}"


IMPOSSIBLE: dict[str, Callable[[dict[str, str]], None]] = {
    "sum overflows 64 bits": marks(toc="9223372036854775807:9223372036854775807:10:1"),
    "ends behind the blob": marks(toc="100:9000000:10:1"),
    "starts behind the blob": marks(toc="900000000:10:10:1"),
    "no length": marks(toc="100:0:10:1"),
    "starts before any frame header": marks(toc="7:10:10:1"),
    "offset zero": marks(toc="0:10:10:1"),
    "tar-split behind the blob": marks(split="100:90000000:10"),
    "tar-split of no length": marks(split="100:0:0"),
    "TOC and tar-split overlap": overlapping,
}


@pytest.mark.parametrize("start", COLD_AND_WARM)
@pytest.mark.parametrize("edit", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_positions_that_cannot_be(tmp_path: Path, start: str, edit: Any) -> None:
    with bench(tmp_path, start) as on:
        content = annotated(edit_annotations=edit)
        on.lies(content, MALFORMED)
        assert on.last is not None


# ── row 8: digests that are no digests ──


@pytest.mark.parametrize("bad", BAD_DIGESTS.values(), ids=BAD_DIGESTS)
def test_digest_in_the_annotations_that_is_a_path(tmp_path: Path, bad: Any) -> None:
    with bench(tmp_path, "warm") as on:
        on.lies(annotated(edit_annotations=marks(toc_digest=bad)), MALFORMED, "TOC digest")


@pytest.mark.parametrize(
    "bad",
    [bad for bad in BAD_DIGESTS.values() if bad],
    ids=[name for name in BAD_DIGESTS if name != "empty"],
)
def test_digest_of_the_tar_split_that_is_a_path(tmp_path: Path, bad: Any) -> None:
    with bench(tmp_path, "warm") as on:
        on.lies(
            annotated(generation=3, edit_annotations=marks(split_digest=bad)),
            MALFORMED,
            "tar-split digest",
        )
        on.lies(
            annotated(edit_toc=lambda toc: toc.update(tarSplitDigest=bad)),
            MALFORMED,
            "tarSplitDigest",
        )


@pytest.mark.parametrize("where", ["config", "layers"])
@pytest.mark.parametrize("bad", BAD_DIGESTS.values(), ids=BAD_DIGESTS)
def test_descriptor_whose_digest_is_a_path(tmp_path: Path, where: Any, bad: Any) -> None:
    def edit(manifest: Json) -> None:
        (manifest["config"] if where == "config" else manifest["layers"][0])["digest"] = bad

    with bench(tmp_path, "cold") as on:
        on.refused(image([victim()], edit_manifest=edit), MALFORMED, "digest")


# ── row 9: above the limits ──


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("limit", ["toc_bytes", "tarsplit_bytes", "tarsplit_decoded_bytes"])
def test_metadata_above_our_limits_is_not_asked_for(tmp_path: Path, start: str, limit: Any) -> None:
    content = honest()
    with bench(tmp_path, start) as on:
        outcome = on.pull(content, limits=Limits(**{limit: 50}))
        on.is_right(outcome, content)
        assert on.last is not None
        entry = outcome.receipt.layers[0]
        assert entry.mode == "whole"
        assert ("above the limits" if start != "cold" else NOTHING_STORED) in (entry.reason or "")
        toc_at = content.layers[0].toc_at
        assert toc_at is not None
        first = next(spans for digest, spans in on.last.asked if digest == content.layers[0].digest)
        assert first[0].start != toc_at.offset


def test_toc_that_claims_to_unpack_to_a_petabyte(tmp_path: Path) -> None:
    def edit(annotations: dict[str, str]) -> None:
        offset, length, _, kind = annotations[TOC_POSITION].split(":")
        annotations[TOC_POSITION] = f"{offset}:{length}:{1 << 50}:{kind}"

    with bench(tmp_path, "warm") as on:
        on.whole(annotated(edit_annotations=edit), "above the limits")


def test_more_entries_than_our_limit(tmp_path: Path) -> None:
    with bench(tmp_path, "warm") as on:
        on.whole(honest(), "entries", limits=Limits(entries_count=5))
