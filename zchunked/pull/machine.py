"""Measure what work costs on this machine over whole pulls, for the plans of later ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zchunked.pull.layer import LayerTask
from zchunked.pull.ways import WorkCosts

SUBJECT = "this machine"
_TELLING = 5000  # frames or chunks; fewer say more of the start than of them
_LEAST, _MOST = 2e-6, 3e-4  # seconds; beyond these the machine was busy with something else
_NEWS = 0.5  # how much of what is believed is what was measured last


def costs_of(measures: Mapping[str, float]) -> WorkCosts:
    """As remembered, as far as that is believable."""
    usual = WorkCosts()
    frame, chunk = measures.get("frame", usual.frame), measures.get("chunk", usual.chunk)
    return WorkCosts(_bounded(frame), _bounded(chunk), usual.byte, usual.tar_byte)


def measured(tasks: Sequence[LayerTask], cpu_seconds: float, before: WorkCosts) -> dict[str, float]:
    """What so much CPU time for a pull says of frames or chunks, where all layers came one way."""
    done = [task for task in tasks if task.proof is not None and task.index is not None]
    ways = {task.way for task in done}
    frames = sum(len(task.frames) for task in done if task.frames is not None)
    chunks = sum(len(task.index.toc.starts) for task in done if task.index is not None)
    blobs = sum(task.layer.size for task in done)
    tars = sum(sum(task.index.toc.sizes) for task in done if task.index is not None)
    if ways == {"exact"} and frames >= _TELLING:
        frame = _bounded((cpu_seconds - blobs * before.byte) / frames)
        return {"frame": before.frame * (1 - _NEWS) + frame * _NEWS}
    if ways == {"lean"} and chunks >= _TELLING:
        chunk = _bounded((cpu_seconds - tars * before.tar_byte) / chunks)
        return {"chunk": before.chunk * (1 - _NEWS) + chunk * _NEWS}
    return {}


def _bounded(seconds: float) -> float:
    return min(max(seconds, _LEAST), _MOST)
