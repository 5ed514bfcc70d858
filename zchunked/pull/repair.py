"""After a proof has failed: bytes that are to blame go and come again; where none are, the image lies, and goes."""

from __future__ import annotations

from collections.abc import Sequence

from zchunked.download.downloader import Downloader
from zchunked.errors import FormatError, IntegrityError, UnsupportedLayerError, ZPullError
from zchunked.formats.frame_map import HEADER, PAYLOAD
from zchunked.layers.corruption import Corruption, evict_corruption, find_corruption
from zchunked.layers.metadata import read_index
from zchunked.layers.proof import UnprovedError, drop_liars, find_liars
from zchunked.layers.stand_ins import Trust
from zchunked.limits import Limits
from zchunked.pull.layer import LayerTask
from zchunked.ranges import ByteRange, merge, subtract, total
from zchunked.receipt import Accounts
from zchunked.store import Store


def heal(
    works: Sequence[LayerTask], store: Store, fetcher: Downloader, accounts: Accounts, limits: Limits, *, is_last: bool
) -> list[LayerTask]:
    """Judge every work that failed; returns those that are worth another round, which follows unless it `is_last`.

    Raises the first failure if any of them is without hope, once nothing is left of all such layers.
    """
    healed: list[LayerTask] = []
    hopeless: list[LayerTask] = []
    failures: list[ZPullError] = []
    for work in works:
        if work.failure is None:
            continue
        try:
            if not is_last and _repair(work, work.failure, store, fetcher, limits):
                healed.append(work)
            else:
                hopeless.append(work)
                failures.append(work.failure)
        except IntegrityError as error:
            failures.append(error)
    for work in hopeless:  # once all are judged, for one may rest on bytes of another
        _drop(work, store, accounts)
    if failures:
        raise failures[0]
    return healed


def _drop(work: LayerTask, store: Store, accounts: Accounts) -> None:
    """Nothing of the layer stays, unless another image has it, by its digest or with another diff ID."""
    layer = work.layer
    accounts.discard(layer.digest)
    if store.is_whole(layer.digest) or store.is_proved(layer.digest):
        store.distrust(layer.digest, [ByteRange(0, max(layer.size, 1))])
    else:
        store.forget(layer.digest)


def _repair(work: LayerTask, failure: ZPullError, store: Store, fetcher: Downloader, limits: Limits) -> bool:
    """True if something is different now: wrong bytes are gone, or fewer frames are trusted."""
    if isinstance(failure, FormatError) or work.order is None:
        return False
    if work.is_lean:
        return _repair_lean(work, failure, store, fetcher)
    if isinstance(failure, UnprovedError):
        return False  # the blob is what the registry promised
    if not _understand(work, store, limits):
        return _once_more(work, failure, store, fetcher, [ByteRange(0, work.layer.size)])
    return _repair_blob(work, failure, store, fetcher, limits)


def _repair_blob(work: LayerTask, failure: ZPullError, store: Store, fetcher: Downloader, limits: Limits) -> bool:
    """The ladder: what is provably damaged; then headers that were predicted; then payloads; then what is left."""
    contents, frames, blob = work.contents, work.frames, work.layer.digest
    assert contents is not None
    assert frames is not None
    stand_ins = work.stand_ins
    found = find_corruption(store, contents, frames, stand_ins, limits)
    _refuse_liars(work, store, found.lying)
    if found.damaged:
        return _drop_damage(work, failure, store, fetcher, found)
    if found.lying:
        return True
    if work.trust is Trust.ALL and HEADER in stand_ins.kinds:
        work.trust = Trust.PAYLOADS
        return True
    if work.trust > Trust.NOTHING and stand_ins.starts:
        store.frames.add_strangers(blob, stand_ins.sources(PAYLOAD, blob))
        work.trust = Trust.NOTHING
        return True
    return _once_more(work, failure, store, fetcher, subtract(found.unsure, work.again))


def _refuse_liars(work: LayerTask, store: Store, starts: Sequence[int]) -> None:
    """Fetch the frames that begin there; what the index says of those that stood in for them is wrong."""
    assert work.frames is not None
    keys = dict(zip(work.frames.edges, work.frames.keys, strict=False))
    liars = set(starts)
    for start, source in zip(work.stand_ins.starts, work.stand_ins.blobs, strict=True):
        if start in liars and source != work.layer.digest:
            store.drop_chunks(source, [keys[start]])
    work.refused.update(starts)


def _drop_damage(work: LayerTask, failure: ZPullError, store: Store, fetcher: Downloader, found: Corruption) -> bool:
    """Of the blob's own bytes, and of those that stood in."""
    elsewhere = subtract(found.damaged, store.covered(work.layer.digest))
    evict_corruption(store, work.layer.digest, work.stand_ins, elsewhere)
    ours = subtract(found.damaged, elsewhere)
    return _once_more(work, failure, store, fetcher, ours) if ours else True


def _once_more(work: LayerTask, failure: ZPullError, store: Store, fetcher: Downloader, wrong: list[ByteRange]) -> bool:
    """Have these spans of the blob fetched again; twice is the end."""
    if not wrong or work.order is None:
        return False
    wrong = store.distrust(work.layer.digest, wrong)
    if not wrong:
        return False  # the blob was proved, so it is not to blame
    work.here_before = total(store.covered(work.layer.digest))
    taken = fetcher.take_back(work.order, wrong)
    work.entry.cached_bytes -= min(total(merge(wrong)) - taken, work.entry.cached_bytes)
    if not subtract(merge(wrong), work.again):
        raise IntegrityError(
            f"layer {work.layer.digest}: {total(merge(wrong))} bytes of it came damaged twice; "
            "the registry's copy is damaged or something on the way changes it"
        ) from failure
    work.again = merge([*work.again, *wrong])
    return True


def _understand(work: LayerTask, store: Store, limits: Limits) -> bool:
    """Read the TOC of a blob that came whole, so that the damage can be found."""
    if work.contents is None:
        try:
            work.contents = read_index(store, work.layer, limits)
        except (FormatError, IntegrityError, UnsupportedLayerError):
            return False
        work.__dict__.pop("frames", None)
    return work.frames is not None


def _repair_lean(work: LayerTask, failure: ZPullError, store: Store, fetcher: Downloader) -> bool:
    contents = work.contents
    assert contents is not None
    liars = find_liars(store, contents, work.places)
    drop_liars(store, liars)
    work.refused_chunks.update(liars)  # other blobs may claim to hold them too, and lie as well
    work.places.clear()
    wrong = [place.span for place in liars.values() if place.blob == work.layer.digest]
    return _once_more(work, failure, store, fetcher, merge(wrong)) if wrong else bool(liars)
