"""Repair a layer whose proof failed: drop damaged bytes, or all of a layer that lies."""

from __future__ import annotations

from collections.abc import Sequence

from zchunked.errors import FormatError, IntegrityError, UnsupportedLayerError, ZPullError
from zchunked.events import Noted
from zchunked.formats.frames.frame_map import HEADER, PAYLOAD
from zchunked.layers.corruption import Corruption, evict_corruption, find_corruption
from zchunked.layers.metadata import read_index
from zchunked.layers.proof import UnprovedError, drop_corrupt_chunks, find_corrupt_chunks
from zchunked.layers.stand_ins import Trust
from zchunked.maintenance.blob_check import reverify
from zchunked.oci.documents import Descriptor
from zchunked.pull.layer import LayerTask
from zchunked.pull.session import PullSession
from zchunked.ranges import ByteRange, merge, subtract, total


def repair(tasks: Sequence[LayerTask], session: PullSession, *, is_last: bool) -> None:
    """Repair each layer that failed, unless this `is_last`: then it is dropped.

    Raises the first failure if any of them is without hope, once nothing is left of all such
    layers.
    """
    repaired: list[LayerTask] = []
    hopeless: list[LayerTask] = []
    failures: list[ZPullError] = []
    for task in tasks:
        if task.failure is None:
            continue
        try:
            if not is_last and _repair(task, task.failure, session):
                repaired.append(task)
            else:
                hopeless.append(task)
                failures.append(task.failure)
        except IntegrityError as error:
            failures.append(error)
    for task in hopeless:  # once all are known, for one may rest on bytes of another
        _drop(task, session)
    if failures:
        raise failures[0]
    for task in repaired:
        session.show(Noted(f"{task.label}: damaged bytes dropped, fetching them again"))


def reverify_layers(session: PullSession, layers: Sequence[Descriptor]) -> None:
    """Drop what the disk has spoilt of layers that were proved."""
    reverify(session.store, layers)


def _drop(task: LayerTask, session: PullSession) -> None:
    """Leave nothing of the layer, unless another image has it, perhaps with another diff ID."""
    layer, store = task.layer, session.store
    session.accounts.discard(layer.digest)
    if store.is_whole(layer.digest) or store.is_proved(layer.digest):
        store.report_corruption(layer.digest, [ByteRange(0, max(layer.size, 1))])
    else:
        store.forget(layer.digest)


def _repair(task: LayerTask, failure: ZPullError, session: PullSession) -> bool:
    """Whether something is different now: wrong bytes are gone, or fewer frames are trusted."""
    if isinstance(failure, FormatError) or task.plan is None:
        return False
    if task.is_lean:
        return _repair_lean(task, failure, session)
    if isinstance(failure, UnprovedError):
        return False  # the blob is what the registry promised
    if session.store.is_whole(task.layer.digest):
        return _repair_stored(task, session)
    if not _understand(task, session):
        return _once_more(task, failure, session, [ByteRange(0, task.layer.size)])
    return _repair_blob(task, failure, session)


def _repair_stored(task: LayerTask, session: PullSession) -> bool:
    """Whether the disk has spoilt a blob that was proved; otherwise its descriptor lies."""
    reverify(session.store, [task.layer])
    return not session.store.is_whole(task.layer.digest)


def _repair_blob(task: LayerTask, failure: ZPullError, session: PullSession) -> bool:
    """Step by step: what is provably damaged; predicted headers; payloads; then what is left."""
    index, frames, blob = task.index, task.frames, task.layer.digest
    assert index is not None
    assert frames is not None
    stand_ins, store = task.stand_ins, session.store
    found = find_corruption(store, index, frames, stand_ins, session.options.limits)
    _refuse_frames(task, session, found.lying)
    if found.damaged:
        return _drop_damage(task, failure, session, found)
    if found.lying:
        return True
    if task.trust is Trust.ALL and HEADER in stand_ins.kinds:
        task.trust = Trust.PAYLOADS
        return True
    if task.trust > Trust.NOTHING and stand_ins.starts:
        store.frames.add_strangers(blob, stand_ins.sources(PAYLOAD, blob))
        task.trust = Trust.NOTHING
        return True
    return _once_more(task, failure, session, subtract(found.unsure, task.again))


def _refuse_frames(task: LayerTask, session: PullSession, starts: Sequence[int]) -> None:
    """Have the frames that begin there fetched; forget what the index says of their stand-ins."""
    assert task.frames is not None
    keys = dict(zip(task.frames.edges, task.frames.keys, strict=False))
    wrong = set(starts)
    for start, source in zip(task.stand_ins.starts, task.stand_ins.blobs, strict=True):
        if start in wrong and source != task.layer.digest:
            session.store.drop_chunks(source, [keys[start]])
    task.refused.update(starts)


def _drop_damage(
    task: LayerTask, failure: ZPullError, session: PullSession, found: Corruption
) -> bool:
    """Drop damage of the blob's own bytes, and of those that stood in."""
    store, blob = session.store, task.layer.digest
    elsewhere = subtract(found.damaged, store.covered(blob))
    evict_corruption(store, blob, task.stand_ins, elsewhere)
    ours = subtract(found.damaged, elsewhere)
    return _once_more(task, failure, session, ours) if ours else True


def _once_more(
    task: LayerTask, failure: ZPullError, session: PullSession, wrong: list[ByteRange]
) -> bool:
    """Have these spans of the blob fetched again; twice is the end."""
    if not wrong or task.plan is None:
        return False
    store, blob = session.store, task.layer.digest
    wrong = store.report_corruption(blob, wrong)
    if not wrong:
        return False  # the blob was proved, so it is not to blame
    task.here_before = total(store.covered(blob))
    taken = session.downloader.take_back(task.plan, wrong)
    task.entry.cached_bytes -= min(total(merge(wrong)) - taken, task.entry.cached_bytes)
    if not subtract(merge(wrong), task.again):
        raise IntegrityError(
            f"layer {blob}: {total(merge(wrong))} bytes of it came damaged twice; "
            "the registry's copy is damaged or something on the way changes it"
        ) from failure
    task.again = merge([*task.again, *wrong])
    return True


def _understand(task: LayerTask, session: PullSession) -> bool:
    """Read the TOC of a blob that came whole, so that the damage can be found."""
    if task.index is None:
        try:
            task.set_index(read_index(session.store, task.layer, session.options.limits))
        except (FormatError, IntegrityError, UnsupportedLayerError):
            return False
    return task.frames is not None


def _repair_lean(task: LayerTask, failure: ZPullError, session: PullSession) -> bool:
    index = task.index
    assert index is not None
    wrong = find_corrupt_chunks(session.store, index, task.places)
    drop_corrupt_chunks(session.store, wrong)
    task.refused_chunks.update(wrong)  # other blobs may claim to hold them too, and lie as well
    task.places.clear()
    ours = [place.span for place in wrong.values() if place.blob == task.layer.digest]
    return _once_more(task, failure, session, merge(ours)) if ours else bool(wrong)
