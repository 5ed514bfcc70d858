"""An OCI image layout on disk (OCI image-spec, image-layout): blobs first, `index.json` last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from zchunked.errors import LocalError
from zchunked.export.atomic import is_free, local_errors, whole_folder, write_whole
from zchunked.export.layers import LayerContent, layers_of, manifest_of
from zchunked.oci.digest import Digest, digest_of
from zchunked.oci.documents import OCI_INDEX, Descriptor, Platform, parse_platform
from zchunked.store import Store
from zchunked.store.images import StoredImage

LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'
_REF_NAME = "org.opencontainers.image.ref.name"


def write_layout(store: Store, image: StoredImage, folder: Path, tag: str | None) -> Digest:
    """Add the image to the layout at `folder`, or make one; returns the manifest's digest there.

    A new layout appears complete or not at all; in one that exists the image appears with its index, replaced last.
    """
    layers = layers_of(store, image)
    manifest, media_type = manifest_of(image, layers)
    with local_errors(f"cannot write {folder}"):
        if (folder / "index.json").exists():
            _fill(folder, image, layers, manifest)
            write_whole(folder / "index.json", [_index(folder, manifest, media_type, tag)])
        elif not is_free(folder):
            raise LocalError(f"{folder} is there already and is no OCI layout; choose another target or remove it")
        else:
            with whole_folder(folder, last="index.json") as partial:
                _fill(partial, image, layers, manifest)
                write_whole(partial / "index.json", [_index(partial, manifest, media_type, tag)])
                write_whole(partial / "oci-layout", [LAYOUT_FILE])
    return digest_of(manifest)


def _fill(folder: Path, image: StoredImage, layers: list[LayerContent], manifest: bytes) -> None:
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    for layer in layers:
        path = blobs / layer.descriptor.digest[7:]
        # A name appears only with its content, so one of the right size needs no second look.
        if not (path.exists() and path.stat().st_size == layer.descriptor.size):
            write_whole(path, layer.blob())
    for data in (image.config_data, manifest):
        write_whole(blobs / digest_of(data)[7:], [data])


def _index(folder: Path, manifest: bytes, media_type: str, tag: str | None) -> bytes:
    """The layout's index with this image in it; an older image of the same tag gives way."""
    path = folder / "index.json"
    listed = Descriptor(media_type, digest_of(manifest), len(manifest))
    return index_with(path.read_bytes() if path.exists() else None, listed, None, tag, str(folder))


def index_with(
    told: bytes | None, manifest: Descriptor, platform: Platform | None, tag: str | None, where: str
) -> bytes:
    """`index.json` as told (None: there is none yet) with one image more; `told` itself if it has that already. Pure.

    The older image of this tag gives way, if it is for the same platform or does not say for which.
    """
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX}
    entries: list[dict[str, Any]] = []
    entry = _entry(manifest, platform, tag)
    if told is not None:
        try:
            document = json.loads(told)
            entries = list(document["manifests"])
            kept = [one for one in entries if not _is_replaced(one, entry, tag)]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise LocalError(f"{where}/index.json is malformed; choose another target or remove it") from error
        if entry in entries and len(kept) == len(entries) - 1:
            return told
        entries = kept
    return msgspec.json.encode(document | {"manifests": [*entries, entry]})


def _entry(manifest: Descriptor, platform: Platform | None, tag: str | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size}
    if platform:
        shown = {"architecture": platform.architecture, "os": platform.os, "variant": platform.variant}
        entry["platform"] = {key: value for key, value in shown.items() if value}
    if tag:
        entry["annotations"] = {_REF_NAME: tag}
    return entry


def _is_replaced(old: dict[str, Any], new: dict[str, Any], tag: str | None) -> bool:
    annotations = old.get("annotations")
    name = annotations.get(_REF_NAME) if isinstance(annotations, dict) else None
    if not tag:
        return name is None and old.get("digest") == new["digest"]
    ours, theirs = _platform_of(new), _platform_of(old)
    return name == tag and (ours is None or theirs in (None, ours))


def _platform_of(entry: dict[str, Any]) -> Platform | None:
    said = entry.get("platform")
    words = [said.get(key) or "" for key in ("os", "architecture", "variant")] if isinstance(said, dict) else []
    return parse_platform("/".join(map(str, words)).rstrip("/"))
