"""Plan each layer: which byte ranges to fetch, or the whole blob, given what the store has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from zchunked.download.blobs.fetch_plan import FetchPlan
from zchunked.layers.stand_ins import Frame, FrameLocation, StandIns, choose_stand_ins, find_frames
from zchunked.oci.digest import Digest
from zchunked.options import GapOptions
from zchunked.pull.layer import LayerTask
from zchunked.pull.planning.estimates import LinkConditions
from zchunked.pull.planning.lean_need import check_loose, held_elsewhere, wanted_of
from zchunked.pull.planning.request_shape import RequestShape, shape_of
from zchunked.pull.planning.stored_frames import StoredFrames
from zchunked.pull.planning.way_chooser import WayChooser
from zchunked.ranges import ByteRange, Spans, merge, subtract
from zchunked.store import ChunkLocation, Store


class Planner:
    """Plans the layers of a pull, their ways and requests, one after the other. For one thread.

    What one layer will fetch, later ones need not: so the order of the layers decides which of them
    fetches what, and the same layers in the same order make the same plan, however they arrive.
    """

    def __init__(
        self,
        store: Store,
        gaps: GapOptions,
        stored: StoredFrames | None = None,
        *,
        may_take_chunks: bool = False,
        is_plan: bool = False,
    ) -> None:
        """`may_take_chunks`: bytes alone decide for the lean way, as with seeds, or offline.

        `is_plan`: the costs are reported, so they are those of the very requests.
        """
        self.stored = stored
        """Frames of stored blobs that are not in the index yet, for the image planned next."""
        self._store, self._gaps = store, gaps
        self._chooser = WayChooser(gaps, may_take_chunks=may_take_chunks, is_plan=is_plan)
        self.is_too_slow = self._chooser.is_too_slow
        self._planned_chunks: dict[bytes, ChunkLocation] = {}  # by layers before this one
        self._planned_frames: dict[Frame, FrameLocation] = {}
        self._unlisted: list[LayerTask] = []  # whose chunks and frames were not listed yet
        self._done: set[Digest] = set()
        self._planned_tasks: list[LayerTask] = []
        self._shapes: dict[Digest, RequestShape] = {}

    def plan(
        self,
        task: LayerTask,
        conditions: LinkConditions,
        *,
        in_flight: Sequence[ByteRange] = (),
        is_unread: bool = False,
    ) -> FetchPlan:
        """Plan one layer. `in_flight`: spans of the blob's tail that are being fetched already.

        `is_unread`: the pull that is planned will not read its TOC.
        """
        blob = task.layer.digest
        here = merge([*self._store.covered(blob), *in_flight])
        if task.way != "whole":
            self._list_planned()
            is_lean = task.is_lean or self._chooser.takes_lean(task)
            stand_ins = self._look_up(task, here) if not is_lean else StandIns()
            if task.way is None:
                self._chooser.choose(
                    task, stand_ins, conditions, here, self._planned_chunks, is_unread=is_unread
                )
            if task.way == "exact":
                task.stand_ins = stand_ins
        if task.lean_index is not None:
            plan = self._plan_lean(task, conditions, here, in_flight)
        else:
            plan = self._plan_blob(task, conditions, here, in_flight)
        self._done.add(blob)
        self._planned_tasks.append(task)
        self._chooser.note_rate(task, conditions.link.rate)
        task.plan = plan
        return plan

    def begin_image(self, stored: StoredFrames) -> None:
        """Plan layers of another image from now on, for which these frames are known."""
        self.stored = stored
        self._chooser.begin_image()

    def has_planned(self, blob: Digest) -> bool:
        """Whether the layer has a plan."""
        return blob in self._done

    def is_planned(self, chunk: bytes) -> bool:
        """Whether a layer that has been planned fetches the chunk of this digest.

        For any thread; a hint.
        """
        return chunk in self._planned_chunks

    # ── ways ──

    def look_up(self, task: LayerTask) -> None:
        """Find the frames of a layer that the store had before this pull. For any thread."""
        if task.frames is not None:
            done, tables = self._done.copy(), self.stored.tables if self.stored else ()
            task.known = find_frames(self._store, task.layer.digest, task.frames, done, tables)

    def _look_up(self, task: LayerTask, here: list[ByteRange]) -> StandIns:
        frames, blob = task.frames, task.layer.digest
        if frames is None:
            return StandIns()
        if task.known is None or task.is_again:
            self.look_up(task)
        assert task.known is not None
        planned = self._planned_frames
        if task.way is None:  # it may take another way
            planned = dict(planned)
        return choose_stand_ins(
            blob, frames, task.known, planned, Spans(here), task.trust, task.refused
        )

    # ── plans ──

    def _plan_blob(
        self,
        task: LayerTask,
        conditions: LinkConditions,
        here: list[ByteRange],
        in_flight: Sequence[ByteRange],
    ) -> FetchPlan:
        """Plan the spans of the blob that nothing stands in for."""
        layer, index = task.layer, task.index
        wanted = subtract([ByteRange(0, layer.size)] if layer.size else [], task.stand_ins.spans())
        tail = [ByteRange(index.payload_end, layer.size)] if index is not None else []
        left = subtract(wanted, here)
        shape = self._shapes[layer.digest] = shape_of(self._gaps, task, conditions, left)
        runs = [run for whole in shape.runs(left) if (run := tuple(subtract(whole, in_flight)))]
        self._unlisted.append(task)
        self._count_cached(task, min(layer.size, task.here_before + self._held(task)))
        return FetchPlan(layer, runs, wanted, tail)

    def _plan_lean(
        self,
        task: LayerTask,
        conditions: LinkConditions,
        here: list[ByteRange],
        in_flight: Sequence[ByteRange],
    ) -> FetchPlan:
        """Plan the chunks to fetch, after checking those that an earlier run left unchecked."""
        index = task.lean_index
        assert index is not None
        own = index.own_chunks()
        if self.stored is not None:
            self.stored.record_all()
        found, planned_chunks = self._find(own), self._planned_chunks
        if task.refused_chunks:
            blob = task.layer.digest
            found = {
                key: place
                for key, place in found.items()
                if place.blob == blob or key not in task.refused_chunks
            }
            planned_chunks = {
                key: place
                for key, place in self._planned_chunks.items()
                if key not in task.refused_chunks
            }
        if task.here_before and (bad := check_loose(index, own, self._store, found)):
            here = subtract(here, bad)
        wanted, metadata, checks = wanted_of(index, task.places, own, found, planned_chunks)
        self._planned_chunks |= planned_chunks
        left = subtract(wanted, here)
        shape = self._shapes[task.layer.digest] = shape_of(self._gaps, task, conditions, left)
        runs = [run for whole in shape.runs(left) if (run := tuple(subtract(whole, in_flight)))]
        self._planned_frames |= {
            (digest, place.length): (place.blob, place.start)
            for digest, place in task.places.items()
            if place.blob == task.layer.digest
        }
        self._count_cached(
            task, min(task.layer.size, task.here_before + held_elsewhere(task, found))
        )
        return FetchPlan(task.layer, runs, wanted, sorted(metadata), checks)

    def _held(self, task: LayerTask) -> int:
        """Bytes of the frames that were in the store before this pull, in other blobs."""
        its, fetched = task.stand_ins, {task.layer.digest, *self._done}
        return sum(
            end - start
            for start, end, blob in zip(its.starts, its.ends, its.blobs, strict=True)
            if blob not in fetched
        )

    @staticmethod
    def _count_cached(task: LayerTask, cached: int) -> None:
        # Later, this pull itself may have fetched what is here; and damaged bytes were not here.
        task.entry.cached_bytes = min(cached, task.entry.cached_bytes) if task.is_again else cached

    def _list_planned(self) -> None:
        """List the chunks and frames that layers before this one fetch, lean ones excepted."""
        for task in self._unlisted:
            frames, stand_ins, blob = task.frames, task.stand_ins, task.layer.digest
            if frames is None or frames.is_joined:
                continue
            elsewhere = set(stand_ins.starts)
            for key, start, length in frames.payloads():
                if start not in elsewhere:
                    self._planned_frames.setdefault((key, length), (blob, start))
                    self._planned_chunks.setdefault(key, ChunkLocation(blob, start, length))
        self._unlisted.clear()

    def _find(self, own: dict[bytes, int]) -> dict[bytes, ChunkLocation]:
        """The chunks that the store had before this pull."""
        planned = self._planned_chunks
        found = self._store.find_chunks(own)
        for digest in planned.keys() & found.keys():
            if found[digest].blob == planned[digest].blob:
                del found[digest]
        return found

    def new_shape(self, task: LayerTask, conditions: LinkConditions) -> RequestShape | None:
        """The shape of requests for the rest where link or host have changed, else None."""
        if task.way == "whole":
            return None
        plan, blob = task.plan, task.layer.digest
        shape = shape_of(self._gaps, task, conditions, ())
        if plan is None or not shape.differ(self._shapes[blob]):
            return None
        shape = shape_of(
            self._gaps, task, conditions, subtract(plan.wanted, self._store.covered(blob))
        )
        self._shapes[blob] = shape
        # Begun runs have spent what metadata may cost
        return replace(shape, metadata=0)

    def take_parts(
        self, task: LayerTask, conditions: LinkConditions, left: list[ByteRange]
    ) -> list[tuple[ByteRange, ...]]:
        """Requests for `left` of a layer that comes whole and whose TOC was read since.

        Nothing of `left` has been requested yet. They leave out what stands in for it, and the
        layer takes the exact way then; where nothing stands in, it goes on whole.
        """
        blob, frames, plan = task.layer.digest, task.frames, task.plan
        if frames is not None and task.known is not None and plan is not None:
            others = {place for other in self._planned_tasks for place in other.frames_of(blob)}
            rest = Spans(subtract([ByteRange(0, task.layer.size)], left))
            known, planned = task.known, dict(self._planned_frames)
            found = choose_stand_ins(
                blob, frames, known, planned, rest, task.trust, task.refused | others
            )
            if found.starts:  # none is left when all of the blob has been asked for meanwhile
                task.stand_ins = found
                task.facts.toc, task.facts.taken = "useful", "exact"
                task.settle_way()
                plan.want(subtract(plan.wanted, found.spans()))
        left = subtract(left, task.stand_ins.spans())
        shape = self._shapes[blob] = shape_of(self._gaps, task, conditions, left)
        return shape.runs(left)
