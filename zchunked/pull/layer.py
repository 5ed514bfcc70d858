"""LayerTask: one layer on its way into the store, with its states and their transitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from zchunked.download.blobs.arrival import Arrivals, BlobArrival
from zchunked.download.blobs.fetch_plan import FetchPlan
from zchunked.errors import FormatError, ZPullError
from zchunked.formats.frames.frame_map import FrameMap
from zchunked.layers.metadata import ChunkPlaces, LayerIndex
from zchunked.layers.proof import Proof
from zchunked.layers.stand_ins import KnownFrames, StandIns, Trust
from zchunked.oci.digest import Digest, short
from zchunked.oci.documents import Descriptor
from zchunked.pull.planning.whole import LayerFacts, why_whole
from zchunked.ranges import ByteRange
from zchunked.receipt import LayerEntry, Way


@dataclass(eq=False)
class LayerTask:
    """One distinct layer. Its states, in order:

    - unknown: neither `index` nor `way`;
    - understood (`LayerMetadata.describe`): `index` where there is a TOC, else `way` is `whole`;
    - planned (`Planner`): `way` and `plan`, with `stand_ins` (exact) or `places` (lean);
    - ended: `proof`, or `failure`; of one that failed, `repair.py` decides whether it is planned
      again. Then `trust` says which frames may still stand in, and `again` what arrived damaged and
      was requested once more.
    """

    layer: Descriptor
    diff_id: Digest
    entry: LayerEntry
    arrival: BlobArrival
    way: Way | None = None
    facts: LayerFacts = field(default_factory=LayerFacts)
    index: LayerIndex | None = None
    here_before: int = 0  # bytes of the blob itself
    places: ChunkPlaces = field(default_factory=dict)
    known: KnownFrames | None = None
    stand_ins: StandIns = field(default_factory=StandIns)
    trust: Trust = Trust.ALL
    # Starts of frames that others stood in for in vain
    refused: set[int] = field(default_factory=set)
    # The same of chunks, by digest: its own blob has them
    refused_chunks: set[bytes] = field(default_factory=set)
    plan: FetchPlan | None = None
    proof: Proof | None = None
    failure: ZPullError | None = None
    is_again: bool = False  # it was planned before, and is now once more
    again: list[ByteRange] = field(default_factory=list)

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"layer {short(self.layer.digest)}"

    @property
    def is_lean(self) -> bool:
        return self.way == "lean"

    @property
    def lean_index(self) -> LayerIndex | None:
        """The index of a layer that takes the lean way, None of another one."""
        return self.index if self.is_lean else None

    @property
    def is_understood(self) -> bool:
        return self.way is not None or self.index is not None

    @cached_property
    def frames(self) -> FrameMap | None:
        """The blob's frames; None where the TOC is unknown or contradicts itself."""
        if self.index is None:
            return None
        try:
            return self.index.frames()
        except FormatError:
            return None

    def set_index(self, index: LayerIndex) -> None:
        """Set the index that was read after the layer was planned."""
        self.index = index
        self.__dict__.pop("frames", None)  # that it has none was remembered

    def frames_of(self, blob: Digest) -> list[int]:
        """Where frames of another blob start that its own bytes, or its tar, are made of."""
        its = self.stand_ins
        if blob == self.layer.digest:
            return []
        frames = [
            start for start, source in zip(its.places, its.blobs, strict=True) if source == blob
        ]
        return [*frames, *(place.start for place in self.places.values() if place.blob == blob)]

    def settle_way(self, why_parts: str | None = None) -> None:
        """Take the way that the facts speak for, whenever they have changed.

        `why_parts`: the reason on the receipt where it comes in parts.
        """
        why = why_whole(self.facts)
        self.way = self.facts.taken if why is None else "whole"
        self.entry.mode = "partial" if why is None else "whole"
        self.entry.reason = why_parts if why is None else why


def tasks_of(
    layers: Sequence[Descriptor],
    diff_ids: Sequence[Digest],
    entries: Sequence[LayerEntry],
    arrivals: Arrivals,
) -> list[LayerTask]:
    """One task for each distinct layer of an image; `entries`: theirs on the receipt."""
    tasks: dict[tuple[Digest, Digest], LayerTask] = {}
    for layer, diff_id, entry in zip(layers, diff_ids, entries, strict=True):
        task = LayerTask(layer, diff_id, entry, arrivals.of(layer.digest))
        tasks.setdefault((layer.digest, diff_id), task)
    return list(tasks.values())
