"""Pulls without a request: what a name means by the store alone, and what is missing for it."""

from __future__ import annotations

from collections.abc import Iterable

from zchunked.errors import NotFoundError
from zchunked.interfaces import Document
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.oci.platform import Platform
from zchunked.pull.layer import LayerTask
from zchunked.pull.metadata.resolve import resolve
from zchunked.ranges import total
from zchunked.store import Store
from zchunked.store.images import ImageDocuments

_MOST_LISTED = 20
_ADVICE = "run the same command without --offline, or name a --seed that holds them"


def root_of(store: Store, name: str, digest: Digest | None, platform: Platform) -> Digest:
    """The digest that `name` named when last pulled. Its documents and config are stored.

    Raises NotFoundError, which says what is missing.
    """
    root = digest or last_pulled(store, name, platform)
    documents = _documents(store, name, root, platform)
    config = documents.manifest.config
    if store.get(config.digest, config.size) is None:
        layers = {layer.digest: layer for layer in documents.manifest.layers}.values()
        refuse_lacking(name, [(blob, _left(store, blob)) for blob in (config, *layers)])
    return root


def last_pulled(store: Store, name: str, platform: Platform) -> Digest:
    """What the name named then, for this platform if possible.

    NotFoundError when it never was pulled.
    """
    pulled = [image for image in store.images() if image.name == name]
    if not pulled:
        raise NotFoundError(
            f"{name} was never pulled into this store, so --offline cannot know what it names; "
            "pull it once with the network, or say name@digest (zpull images lists what is stored)"
        )
    return next((image.root for image in pulled if image.platform == str(platform)), pulled[0].root)


def _documents(store: Store, name: str, root: Digest, platform: Platform) -> ImageDocuments:
    def refuse(digest: Digest | None) -> Document:
        raise NotFoundError(
            f"{name}: manifest {digest} is not in the store, and --offline sends no request; "
            "run the same command without --offline"
        )

    return resolve(root, platform, store, refuse)


def _left(store: Store, blob: Descriptor) -> int:
    if store.is_whole(blob.digest) or store.is_proved(blob.digest):
        return 0
    return blob.size - total(store.covered(blob.digest))


def refuse_missing(name: str, tasks: Iterable[LayerTask], store: Store) -> None:
    """NotFoundError, layer by layer, unless the store has everything that was planned."""
    plans = {task.layer.digest: task.plan for task in tasks if task.plan}
    refuse_lacking(
        name,
        [(plan.blob, total(store.missing(digest, plan.wanted))) for digest, plan in plans.items()],
    )


def refuse_lacking(name: str, lacking: Iterable[tuple[Descriptor, int]]) -> None:
    """NotFoundError if of any blob some bytes are lacking."""
    missing = [(blob, size) for blob, size in lacking if size]
    if not missing:
        return
    listed = [
        f"{size} of {blob.size} bytes of {blob.digest}" for blob, size in missing[:_MOST_LISTED]
    ]
    if len(missing) > _MOST_LISTED:
        listed.append(f"and of {len(missing) - _MOST_LISTED} more")
    raise NotFoundError(
        f"{name}: {sum(size for _, size in missing)} bytes are missing: {', '.join(listed)}; "
        f"{_ADVICE}"
    )
