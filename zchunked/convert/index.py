"""Write an index of converted images of several platforms, marked as container tools mark zstd."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from zchunked.convert.image import ConvertedImage, listed
from zchunked.export.shipment import Shipment, shipment_of
from zchunked.oci.digest import Digest, digest_of
from zchunked.oci.documents import (
    INDEXES,
    OCI_INDEX,
    ZSTD_INSTANCE,
    Descriptor,
    Index,
    Instance,
    parse_document,
)
from zchunked.oci.platform import Platform
from zchunked.store import Store
from zchunked.store.images import StoredImage

Entry = dict[str, Any]
"""What an index says of something it lists."""

_SUBJECT = "vnd.docker.reference.digest"


@dataclass(frozen=True, slots=True)
class Choice:
    """An image to convert: `digest` is its manifest's, None for what the source's name stands for.

    `entry`: what the old index says of it, nothing where there is none. `twins`: entries of the
    same image for tools that know no zstd.
    """

    digest: Digest | None
    platform: Platform | None
    entry: Entry
    twins: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Converted:
    """One platform's image before and after."""

    before: StoredImage
    after: ConvertedImage
    choice: Choice

    @property
    def platform(self) -> str:
        return str(self.before.config.platform)

    @property
    def old_digest(self) -> Digest:
        return self.before.documents.manifest_digest

    @property
    def new_digest(self) -> Digest:
        return self.after.image.documents.manifest_digest

    @property
    def replaced_digests(self) -> list[str]:
        """Manifests of this image in the old index."""
        return [self.old_digest, *(str(entry["digest"]) for entry in self.choice.twins)]

    @property
    def keeps_before(self) -> bool:
        """Whether the old instance has a place beside the new one: not if it is marked as well."""
        return self.old_digest != self.new_digest and not _is_marked(self.choice.entry)


def choices(root: bytes) -> tuple[list[Choice], list[Entry]]:
    """The images to convert, in order, and entries of what is no image.

    Of several instances of one platform the first that is marked as zstd, else all of them. A
    manifest is one image.
    """
    document = parse_document(root)
    if not isinstance(document, Index):
        return [Choice(None, None, {})], []
    found: dict[Digest, tuple[Instance, Entry]] = {}
    for instance, entry in zip(document.instances, json.loads(root)["manifests"], strict=True):
        found.setdefault(instance.descriptor.digest, (instance, entry))
    others: list[Entry] = []
    groups: dict[str, list[tuple[Instance, Entry]]] = {}
    for digest, (instance, entry) in found.items():
        if not instance.is_image or instance.descriptor.media_type in INDEXES:
            others.append(entry)
            continue
        platform = json.dumps(entry.get("platform"), sort_keys=True)
        groups.setdefault(platform if instance.platform else digest, []).append((instance, entry))
    return [choice for group in groups.values() for choice in _chosen(group)], others


def _chosen(group: list[tuple[Instance, Entry]]) -> Iterator[Choice]:
    marked = [one for one in group if _is_marked(one[1])]
    twins = tuple(entry for _, entry in group if marked and not _is_marked(entry))
    for instance, entry in marked[:1] or group:
        yield Choice(instance.descriptor.digest, instance.platform, entry, twins)


def _is_marked(entry: Entry) -> bool:
    return (entry.get("annotations") or {}).get(ZSTD_INSTANCE) == "true"


class NewIndex:
    """The index of converted images.

    `root` is the old index, whose annotations stay, or a manifest. `keep`: old instances stand
    before new ones, for tools that know no zstd.
    """

    def __init__(self, root: bytes, images: list[Converted], *, keep: bool) -> None:
        self._root, self._images, self._keep = root, images, keep
        self._others: list[Entry] = []

    def add_others(self, entries: list[Entry]) -> Iterator[str]:
        """List what is no image too. An attestation stays while its subject does.

        Yields a line on each that does not.
        """
        subjects = {
            digest: one.new_digest for one in self._images for digest in one.replaced_digests
        }
        staying = {str(entry["digest"]) for entry in self._entries()}
        for entry in entries:
            subject = (entry.get("annotations") or {}).get(_SUBJECT)
            if subject in staying or subject not in subjects:
                self._others.append(entry)
            else:
                yield (
                    f"attestation {entry['digest']} is left out: its subject {subject} is "
                    f"{subjects[subject]} now"
                )

    def _entries(self) -> Iterator[Entry]:
        for one in self._images:
            if self._keep:
                yield from one.choice.twins
                if one.keeps_before:
                    yield _entry(one.before, one.choice.entry, {})
            yield _entry(one.after.image, one.choice.entry, {ZSTD_INSTANCE: "true"})
        yield from self._others

    def document(self) -> tuple[Descriptor, bytes]:
        entries: list[Entry] = []
        for entry in self._entries():
            if entry not in entries:  # two images may become one
                entries.append(entry)
        document: Entry = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        old = json.loads(self._root)
        if "manifests" in old and old.get("annotations"):
            document["annotations"] = old["annotations"]
        data = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
        return Descriptor(OCI_INDEX, digest_of(data), len(data)), data

    def shipment(self, store: Store, fetched: Callable[[Entry], Shipment]) -> Shipment:
        """The index and all that it lists; it is in the store then.

        `fetched` makes a shipment of what is not converted.
        """
        descriptor, data = self.document()
        store.put(data)
        shipment = Shipment([], [(descriptor, data)], None)
        for entry in reversed(self._others):
            shipment = shipment.after(fetched(entry))
        for one in reversed(self._images):
            shipment = shipment.after(shipment_of(store, one.after.image))
            if self._keep:
                if one.keeps_before:
                    shipment = shipment.after(shipment_of(store, one.before))
                for entry in reversed(one.choice.twins):
                    shipment = shipment.after(fetched(entry))
        return shipment


def _entry(image: StoredImage, old: Entry, marks: dict[str, str]) -> Entry:
    documents = image.documents
    manifest = Descriptor(
        documents.manifest.media_type, documents.manifest_digest, len(documents.manifest_data)
    )
    platform = image.config.platform
    shown = {"architecture": platform.architecture, "os": platform.os, "variant": platform.variant}
    annotations = {**(old.get("annotations") or {}), **marks}
    entry = listed(manifest) | {
        "platform": old.get("platform") or {key: x for key, x in shown.items() if x}
    }
    return entry | ({"annotations": annotations} if annotations else {})
