"""Write an OCI image layout on disk (OCI image-spec): blobs first, `index.json` last."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from zchunked.errors import LocalError
from zchunked.export.files.atomic import local_errors
from zchunked.export.files.folder import FolderTarget, clear, is_filled, is_layout, may_take, taken
from zchunked.export.files.stage import Stage
from zchunked.export.images.layers import layers_of, manifest_of
from zchunked.export.images.names import Names
from zchunked.oci.digest import Digest, digest_of
from zchunked.oci.documents import OCI_INDEX, Descriptor
from zchunked.oci.platform import Platform, parse_platform
from zchunked.sources.layout import blob_path
from zchunked.store import Store
from zchunked.store.images import StoredImage

LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'
IMAGE_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"
_BLOBS = "blobs/sha256/"


def write_layout(
    store: Store,
    image: StoredImage,
    folder: Path,
    names: Names,
    *,
    stage: Stage | None = None,
    force: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> Digest:
    """Add the image to the layout at `folder`, or make one; returns the manifest's digest there.

    A new layout appears complete or not at all; in one that exists the image appears with its
    index, replaced last. Any number of processes may write to one layout: they take turns, and
    `report` says when this one waits. `stage`: where parts of a new layout are already; it is used
    up. `force`: other things may be there.
    """
    content = _content_of(store, image, names)
    stage = stage or Stage(folder)
    try:
        with local_errors(f"cannot write {folder}"):
            if not (force or may_take(folder)):
                raise taken(folder, "OCI layout")
            if is_layout(folder) or (force and is_filled(folder)):
                target = FolderTarget(folder, force=force)
                with target.held(report):
                    _fill(target, content)
                    _list(target, content)
                stage.drop()  # another process has made the layout meanwhile
            else:
                _make(folder, content, stage, report, force=force)
    except BaseException:
        stage.drop()
        raise
    finally:
        stage.close()
    return content.listed.digest


Pieces = Callable[[], Iterable[bytes | memoryview]]


@dataclass(frozen=True, slots=True)
class _Content:
    """What goes into the layout: `blobs` by their paths there."""

    listed: Descriptor
    names: Names
    blobs: dict[str, tuple[int, Pieces]]


def _content_of(store: Store, image: StoredImage, names: Names) -> _Content:
    layers = layers_of(store, image)
    manifest, media_type = manifest_of(image, layers)
    blobs: dict[str, tuple[int, Pieces]] = {}
    for layer in layers:
        blobs[blob_path(layer.descriptor.digest)] = (layer.descriptor.size, layer.prefetched_blob)
    for data in (image.config_data, manifest):
        blobs[blob_path(digest_of(data))] = (len(data), partial(list, [data]))
    return _Content(Descriptor(media_type, digest_of(manifest), len(manifest)), names, blobs)


def _make(
    folder: Path, content: _Content, stage: Stage, report: Callable[[str], None], *, force: bool
) -> None:
    """Make a new layout in a stage. If another process made one meanwhile, that gets the blobs."""
    made = FolderTarget(stage.folder, known=stage.written)
    _fill(made, content)
    for blob in stage.blobs.iterdir():
        # a killed process left it, for another image
        if f"{_BLOBS}{blob.name}" not in content.blobs:
            blob.unlink()
    if force:
        clear(folder)
    target = FolderTarget(folder, force=force)
    with target.held(report):
        if not is_layout(folder) and not stage.is_inside:
            _list(made, content)
            with suppress(OSError):  # something hidden is in the folder, or it is behind a link
                stage.folder.rename(folder)  # over the empty folder that is held
                stage.renamed()
                return
        _mark(target)  # before the blobs: a reader of the folder meanwhile sees a layout
        for path in content.blobs:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (stage.folder / path).rename(folder / path)
        _list(target, content)
    stage.drop()


def _fill(target: FolderTarget, content: _Content) -> None:
    for path, (size, pieces) in content.blobs.items():
        if target.size_of(path) != size:
            target.put(path, size, pieces())


def _mark(target: FolderTarget) -> None:
    if target.size_of("oci-layout") is None:
        target.put("oci-layout", len(LAYOUT_FILE), [LAYOUT_FILE])


def _list(target: FolderTarget, content: _Content) -> None:
    """Write the index last, for the rest hangs on it."""
    _mark(target)
    change = partial(
        index_with,
        manifest=content.listed,
        platform=None,
        tag=content.names.tag,
        where=target.name,
        full_name=content.names.full,
    )
    target.update("index.json", change)


def index_with(
    given: bytes | None,
    manifest: Descriptor,
    platform: Platform | None,
    tag: str | None,
    where: str,
    full_name: str | None = None,
) -> bytes:
    """`index.json` with one image more; `given` itself if it has it. None: none yet. Pure.

    The older image of this tag gives way, if it is for the same platform or does not say for which.
    `full_name`: what engines call the image, with host and tag.
    """
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX}
    entries: list[dict[str, Any]] = []
    entry = _entry(manifest, platform, tag, full_name)
    if given is not None:
        try:
            document = json.loads(given)
            entries = list(document["manifests"])
            kept = [one for one in entries if not _is_replaced(one, entry, tag)]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise LocalError(
                f"{where}/index.json is malformed; choose another target or remove it"
            ) from error
        if entry in entries and len(kept) == len(entries) - 1:
            return given
        entries = kept
    return msgspec.json.encode(document | {"manifests": [*entries, entry]})


def _entry(
    manifest: Descriptor, platform: Platform | None, tag: str | None, full_name: str | None
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": manifest.size,
    }
    if platform:
        shown = {
            "architecture": platform.architecture,
            "os": platform.os,
            "variant": platform.variant,
        }
        entry["platform"] = {key: value for key, value in shown.items() if value}
    named = {_REF_NAME: tag, IMAGE_NAME: full_name}
    if any(named.values()):
        entry["annotations"] = {key: name for key, name in named.items() if name}
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
    words = (
        [said.get(key) or "" for key in ("os", "architecture", "variant")]
        if isinstance(said, dict)
        else []
    )
    return parse_platform("/".join(map(str, words)).rstrip("/"))
