"""The images that are measured: public packages, pushed by a real writer, kept in .cache/bench/."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench.packages import SIZES, Npm, Pip
from tests.bench.trees import node_modules, site_packages, write_tar
from tests.helpers.servers import peers
from tests.peers import corpus

HOME = Path(__file__).parents[2] / ".cache" / "bench"
TAGS = ("v1", "v2")
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_SITE = "usr/lib/python3/dist-packages"
_FORMATS = {"node": "2"}  # of each image, "1" if not said; another number builds it anew


@dataclass(frozen=True, slots=True)
class Corpora:
    """A registry's storage, and the names of the images in it."""

    storage: Path
    images: tuple[str, ...]
    grown: Mapping[int, str]
    """File count → name."""


def corpora(size: str, say: Callable[[str], None] = print) -> Corpora:
    """Of this size; what an earlier run has finished is not made again."""
    wanted = SIZES[size]
    home = HOME / size
    home.mkdir(parents=True, exist_ok=True)
    grown = {count: f"files-{count}" for count in wanted.grown}
    makers: dict[str, Callable[[Path], None]] = {
        "python": lambda work: _python(work, wanted.pip),
        "node": lambda work: _node(work, wanted.npm),
    }
    for count, name in grown.items():
        makers[name] = partial(_grown, count)
    for name, make in makers.items():
        done = home / f"{name}.{_FORMATS.get(name, '1')}.done"
        if not done.exists():
            say(f"building the image {name} of the {size} corpus; this is done once")
            work = home / f"{name}.work"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            make(work)
            _push(work / "layout", name, home / "storage")
            shutil.rmtree(work)
            done.touch()
    return Corpora(home / "storage", ("node", "python"), grown)


def _python(work: Path, wanted: Pip) -> None:
    tags: dict[str, list[str]] = {tag: [] for tag in TAGS}
    trees: dict[str, str] = {}
    for pair in wanted.layers:
        for tag, pins in zip(TAGS, pair, strict=True):
            if pins not in trees:
                tree = site_packages(work / f"tree-{len(trees)}", pins)
                trees[pins] = _add(work / "layout", tree, _SITE)
                shutil.rmtree(tree)
            tags[tag].append(trees[pins])
    _finish(work / "layout", tags)


def _node(work: Path, wanted: Npm) -> None:
    first = node_modules(work / "first", wanted.pins)
    second = node_modules(work / "second", wanted.moved, before=work / "first")
    layers = [_add(work / "layout", tree, "srv/app/node_modules") for tree in (first, second)]
    _finish(work / "layout", {tag: [layer] for tag, layer in zip(TAGS, layers, strict=True)})


def _grown(count: int, work: Path) -> None:
    before = corpus.grow(count, count, shrunk=4)  # of 300,000 files, 7 kB each would be 2.1 GB
    after = corpus.change(before, count, share=0.3)
    images = dict(zip(TAGS, ([corpus.tar(files)] for files in (before, after)), strict=True))
    corpus.layout(work / "layout", images)


def _add(layout: Path, tree: Path, under: str) -> str:
    """A tree as a plain layer; its digest's hex."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    hexed = write_tar(tree, under, blobs / "growing")
    (blobs / "growing").rename(blobs / hexed)
    return hexed


def _finish(layout: Path, tags: Mapping[str, Sequence[str]]) -> None:
    """Config, manifest and index of layers that are there."""
    manifests = {}
    for tag, layers in tags.items():
        diff_ids = [f"sha256:{hexed}" for hexed in layers]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        described = [descriptor(layout, hexed, "layer.v1.tar") for hexed in layers]
        document = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": put(layout, config, "config.v1+json"),
        }
        manifests[tag] = put(layout, document | {"layers": described}, "manifest.v1+json")
    finish(layout, manifests)


def finish(layout: Path, manifests: Mapping[str, Mapping[str, object]]) -> None:
    """What makes a layout of blobs that are there; manifests by tag."""
    listed = [
        {**manifest, "annotations": {"org.opencontainers.image.ref.name": tag}}
        for tag, manifest in manifests.items()
    ]
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": listed}))


def put(layout: Path, document: object, media_type: str) -> dict[str, object]:
    """A document as a blob; how it is listed."""
    path = layout / "blobs" / "sha256" / "growing"
    path.write_text(json.dumps(document))
    hexed = hashlib.sha256(path.read_bytes()).hexdigest()
    path.rename(path.with_name(hexed))
    return descriptor(layout, hexed, media_type)


def descriptor(layout: Path, hexed: str, media_type: str) -> dict[str, object]:
    """How a blob of a layout is listed."""
    size = (layout / "blobs" / "sha256" / hexed).stat().st_size
    return {
        "mediaType": f"application/vnd.oci.image.{media_type}",
        "digest": f"sha256:{hexed}",
        "size": size,
    }


def _push(layout: Path, name: str, storage: Path) -> None:
    """As zstd:chunked. One repository per image, lest blobs of one are offered for another."""
    skopeo = peers.skopeo_new()
    with peers.docker_registry(layout.parent / "registry", storage=storage) as server:
        for tag in TAGS:
            target = f"docker://{server.host}/{name}:{tag}"
            options = ("--dest-tls-verify=false", "--dest-compress-format", "zstd:chunked")
            skopeo("copy", *options, f"oci:{layout}:{tag}", target, timeout=1800)
    os.sync()
