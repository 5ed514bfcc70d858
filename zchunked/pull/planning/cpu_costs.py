"""Measure what work costs on this machine over whole pulls, for the plans of later ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zchunked.pull.planning.ways import TOC_BYTES, WorkCosts

if TYPE_CHECKING:
    from zchunked.pull.layer import LayerTask

SUBJECT = "this machine"
_TELLING = 5000  # frames or chunks; fewer say more of the start than of them
_LEAST, _MOST = 2e-6, 3e-4  # seconds; beyond these the machine was busy with something else
_NEWS = 0.5  # how much of what is believed is what was measured last


def costs_of(measures: Mapping[str, float]) -> WorkCosts:
    """Costs as remembered, as far as they are believable."""
    usual = WorkCosts()
    frame, chunk = measures.get("frame", usual.frame), measures.get("chunk", usual.chunk)
    table = _bounded(measures.get("table byte", usual.table_byte) * TOC_BYTES) / TOC_BYTES
    return WorkCosts(_bounded(frame), _bounded(chunk), usual.byte, usual.tar_byte, table)


@dataclass(slots=True)
class TablesRead:
    """TOCs of stored blobs that a pull has read: their bytes, compressed, and CPU time."""

    bytes: int = 0
    seconds: float = 0.0


def measured(
    tasks: Sequence[LayerTask], cpu_seconds: float, tables: TablesRead, before: WorkCosts
) -> dict[str, float]:
    """What so much CPU time for a pull says of stored tables, and of frames or chunks.

    Of these only where all layers came one way.
    """
    found = {}
    if tables.bytes >= _TELLING * TOC_BYTES:
        found["table byte"] = _blend(
            before.table_byte, _bounded(tables.seconds / tables.bytes * TOC_BYTES) / TOC_BYTES
        )
    cpu_seconds -= tables.seconds
    done = [task for task in tasks if task.proof is not None and task.index is not None]
    ways = {task.way for task in done}
    # not of lean layers, whose frames are made by asking for them
    exact = [task for task in done if task.way == "exact"]
    frames = sum(len(task.frames) for task in exact if task.frames is not None)
    chunks = sum(len(task.index.toc.starts) for task in done if task.index is not None)
    blobs = sum(task.layer.size for task in done)
    tars = sum(sum(task.index.toc.sizes) for task in done if task.index is not None)
    if ways == {"exact"} and frames >= _TELLING:
        frame = _bounded((cpu_seconds - blobs * before.byte) / frames)
        found["frame"] = _blend(before.frame, frame)
    if ways == {"lean"} and chunks >= _TELLING:
        chunk = _bounded((cpu_seconds - tars * before.tar_byte) / chunks)
        found["chunk"] = _blend(before.chunk, chunk)
    return found


def _blend(before: float, found: float) -> float:
    return before * (1 - _NEWS) + found * _NEWS


def _bounded(seconds: float) -> float:
    return min(max(seconds, _LEAST), _MOST)
