"""What `counts` counts: the costly parts of a lean update, in turn, on one thread, offline.

`python -m tests.bench.counted FOLDER` works on what `lay_out` made there, and calls `getppid`,
which nobody else does, after each stage; a counter that watches for it can tell stages apart.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from msgspec import to_builtins

from zchunked.download.blobs.arrival import BlobArrival
from zchunked.download.coalesce import Link
from zchunked.layers.chunk_data import are_chunks
from zchunked.layers.index_frames import index_blobs, unindexed
from zchunked.layers.metadata import read_index_and_tarsplit
from zchunked.layers.proof import prove
from zchunked.layers.rebuild import Rebuild
from zchunked.limits import DEFAULT_LIMITS
from zchunked.oci.documents import Descriptor
from zchunked.options import GapOptions
from zchunked.pull.layer import LayerTask
from zchunked.pull.planning.estimates import LinkConditions
from zchunked.pull.planning.planner import Planner
from zchunked.receipt import LayerEntry
from zchunked.store import Store

STAGES = (
    "start",
    "tables of stored blobs",
    "table of contents",
    "look-up, schedule",
    "chunks checked, entered",
    "rebuild, proof",
)
BEFORE, AFTER, LAYER = "before", "after", "layer.json"
"""In the folder: a store with the first version, one with both, the second version's layer."""
_SPANS = 400


def main(folder: Path) -> None:
    found = json.loads((folder / LAYER).read_text())
    layer = Descriptor(**found["layer"])
    task = LayerTask(
        layer,
        found["diff_id"],
        LayerEntry(layer.digest, found["diff_id"], layer.size, "zstd:chunked"),
        BlobArrival(threading.Event()),
    )
    with Store(folder / BEFORE) as before, Store(folder / AFTER) as after:
        os.getppid()
        # A pull reads the tables of stored blobs first, so that their frames are found
        index_blobs(before, unindexed(before, DEFAULT_LIMITS), DEFAULT_LIMITS)
        os.getppid()
        task.index = read_index_and_tarsplit(after, layer)
        os.getppid()
        checks = (
            Planner(before, GapOptions(lean=True))
            .plan(task, LinkConditions(8, Link(), lambda _: _SPANS))
            .checks
        )
        os.getppid()
        asked = list(zip(checks.starts, checks.ends, checks.sizes, checks.digests, strict=True))
        assert all(are_chunks(after, layer.digest, asked))
        before.add_chunks(
            layer.digest,
            layer.size,
            [(digest, at, end - at, size) for at, end, size, digest in asked],
        )
        os.getppid()
        prove(Rebuild(after, task.index, task.places).tar(), layer, task.diff_id)
        os.getppid()
    print(json.dumps({"chunks": len(task.index.toc.digests), "checked": len(asked)}))


def describe(layer: Descriptor, diff_id: str) -> str:
    """What `main` must know of the layer."""
    return json.dumps({"layer": to_builtins(layer), "diff_id": diff_id})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
