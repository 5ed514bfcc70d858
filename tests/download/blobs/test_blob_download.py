"""Which runs of a blob's queue are asked for in one request."""

from __future__ import annotations

import threading

import pytest

from zchunked.download.blobs.arrival import BlobArrival
from zchunked.download.blobs.blob_download import BlobDownload
from zchunked.download.blobs.fetch_plan import FetchPlan
from zchunked.download.coalesce import Run
from zchunked.oci.digest import EMPTY
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange


def state_of(*runs: Run) -> BlobDownload:
    spans = [span for run in runs for span in run]
    plan = FetchPlan(Descriptor("", EMPTY, 1000), [*runs], spans, [])
    return BlobDownload(plan, BlobArrival(threading.Event()), queue=runs)


def run(*edges: int) -> Run:
    return tuple(map(ByteRange, edges[0::2], edges[1::2]))


ROW = [run(at, at + 10) for at in range(0, 100, 10)]


@pytest.mark.parametrize(
    ("queue", "size", "jobs", "taken"),
    [
        (ROW, 100, 1, 10),
        (ROW, 35, 1, 3),  # no more bytes than that
        (ROW, 100, 4, 3),  # a worker's share of the nine behind it
        (ROW, 100, 16, 1),
        (ROW, 0, 1, 1),
        ([run(0, 10), run(11, 20), run(20, 30)], 100, 1, 1),  # a gap, which nobody wants
        ([run(0, 10), run(10, 20, 30, 40), run(40, 50)], 100, 1, 1),  # parts stay as planned
        ([run(0, 10, 20, 30), run(30, 40)], 100, 1, 1),
    ],
)
def test_neighbours_are_taken_together(
    queue: list[Run], size: float, jobs: int, taken: int
) -> None:
    state = state_of(*queue)
    first = state.take()
    assert first is not None
    assert state.take_more(first, size, jobs) == queue[:taken]
    assert state.running == queue[:taken]
    assert [*state.queue] == queue[taken:]
