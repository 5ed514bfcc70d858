"""After a proof has failed: bytes that are to blame go and come again; where none are, the image lies, and goes."""

from __future__ import annotations

from collections.abc import Sequence

from zchunked.download.downloader import Downloader
from zchunked.errors import FormatError, IntegrityError, ZPullError
from zchunked.layers.proof import UnprovedError, drop_liars, find_damage, find_liars
from zchunked.pull.planner import LayerTask
from zchunked.ranges import ByteRange, merge, subtract, total
from zchunked.receipt import Accounts
from zchunked.store import Store


def heal(
    works: Sequence[LayerTask], store: Store, fetcher: Downloader, accounts: Accounts, *, is_last: bool
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
            if not is_last and _evict_damage(work, work.failure, store, fetcher):
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
    """Nothing of the layer stays, unless another image has it, with another diff ID that it was proved against."""
    layer = work.layer
    accounts.discard(layer.digest)
    store.distrust(layer.digest, [ByteRange(0, max(layer.size, 1))])
    if work.contents is not None and not (store.is_whole(layer.digest) or store.is_proved(layer.digest)):
        store.drop_chunks(layer.digest, work.contents.own_chunks())


def _evict_damage(work: LayerTask, failure: ZPullError, store: Store, fetcher: Downloader) -> bool:
    """True if wrong bytes were found, which are gone now and shall come once more; wrong twice is the end."""
    layer, contents = work.layer, work.parts
    if isinstance(failure, FormatError) or work.order is None:
        return False
    if contents is None:
        if isinstance(failure, UnprovedError):
            return False  # the blob is what the registry promised
        wrong = find_damage(store, layer, work.contents, work.again)
    else:
        liars = find_liars(store, contents, work.places)
        drop_liars(store, liars)
        work.places.clear()
        wrong = [place.span for place in liars.values() if place.blob == layer.digest]
        if not liars and not work.again:
            wrong = contents.headers  # no digest vouches for them alone
        elif liars and not wrong:
            return True
    if not wrong:
        return False
    wrong = store.distrust(layer.digest, wrong)
    if not wrong:
        return False  # the blob was proved, so it is not to blame
    work.here_before = total(store.covered(layer.digest))
    taken = fetcher.take_back(work.order, wrong)
    work.entry.cached_bytes -= min(total(merge(wrong)) - taken, work.entry.cached_bytes)
    if not subtract(merge(wrong), work.again):
        raise IntegrityError(
            f"layer {layer.digest}: {total(merge(wrong))} bytes of it came damaged twice; "
            "the registry's copy is damaged or something on the way changes it"
        ) from failure
    work.again = merge([*work.again, *wrong])
    return True
