"""An OCI image layout on disk (OCI image-spec, image-layout): blobs first, `index.json` last."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from zchunked.digest import Digest, digest_of
from zchunked.errors import LocalError
from zchunked.exports.content import LayerContent, layers_of, manifest_of
from zchunked.exports.files import is_free, local_errors, whole_folder, write_whole
from zchunked.image import StoredImage
from zchunked.oci import OCI_INDEX
from zchunked.store import Store

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
    entries: list[dict[str, object]] = []
    try:
        told = json.loads((folder / "index.json").read_bytes())
        entries = [entry for entry in told["manifests"] if not _is_replaced(entry, manifest, tag)]
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LocalError(f"{folder}/index.json is malformed; choose another target or remove it") from error
    entry: dict[str, object] = {"mediaType": media_type, "digest": digest_of(manifest), "size": len(manifest)}
    if tag:
        entry["annotations"] = {_REF_NAME: tag}
    entries.append(entry)
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})


def _is_replaced(entry: dict[str, object], manifest: bytes, tag: str | None) -> bool:
    annotations = entry.get("annotations")
    name = annotations.get(_REF_NAME) if isinstance(annotations, dict) else None
    return name == tag if tag else (name is None and entry.get("digest") == digest_of(manifest))
