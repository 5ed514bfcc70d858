"""The one place that decides whether a layer comes whole: each reason, and which goes first."""

from __future__ import annotations

import threading
from itertools import product
from typing import get_args

import pytest

from zchunked.download.blobs.arrival import BlobArrival
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.pull.layer import LayerTask
from zchunked.pull.planning.whole import (
    FASTER_WHOLE,
    NO_RANGES,
    NOTHING_STORED,
    OTHER_ENCODER,
    REST_NOT_STORED,
    LayerFacts,
    TocUse,
    why_whole,
)
from zchunked.receipt import LayerEntry, Way


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (LayerFacts(), None),
        (LayerFacts(has_ranges=False, no_parts="plain gzip"), NO_RANGES),
        (LayerFacts(no_parts="plain gzip", toc="useless"), "plain gzip"),
        (LayerFacts(toc="useless"), NOTHING_STORED),
        (LayerFacts(toc="useless", here=1), REST_NOT_STORED),
        (LayerFacts(toc="slow", here=1), FASTER_WHOLE),
        (LayerFacts(taken="whole", has_stand_ins=True, here=1), FASTER_WHOLE),
        (LayerFacts(taken="whole", is_foreign=True), OTHER_ENCODER),
        (LayerFacts(taken="whole", here=1), REST_NOT_STORED),
        (LayerFacts(taken="whole"), NOTHING_STORED),
        (LayerFacts(taken="exact", has_stand_ins=True), None),
        (LayerFacts(taken="lean"), None),
    ],
)
def test_each_reason_is_given_where_nothing_weightier_is(
    facts: LayerFacts, why: str | None
) -> None:
    assert why_whole(facts) == why


def test_a_layer_takes_the_way_that_its_facts_speak_for_and_says_why() -> None:
    """Whatever the facts: whole exactly where there is a reason, otherwise what was chosen."""
    ways: tuple[Way | None, ...] = (None, *get_args(Way))
    for has_ranges, no_parts, toc, taken in product(
        (True, False), (None, "plain gzip"), get_args(TocUse), ways
    ):
        digest = Digest("sha256:" + "1" * 64)
        task = LayerTask(
            Descriptor("", digest, 1),
            digest,
            LayerEntry(digest, digest, 1, "zstd:chunked"),
            BlobArrival(threading.Event()),
        )
        task.facts = LayerFacts(has_ranges, no_parts, toc, taken=taken)
        task.settle_way("parts")
        why = why_whole(task.facts)
        expected = ("whole", "whole", why) if why else (taken, "partial", "parts")
        assert (task.way, task.entry.mode, task.entry.reason) == expected
        assert task.way != "whole" or why
