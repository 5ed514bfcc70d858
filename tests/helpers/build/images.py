"""Images, indexes and OCI layouts made of layers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers.build.layers import Layer, sha256
from tests.helpers.build.toc import Json, dumps

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
ZSTD_INSTANCE = {"io.github.containers.compression.zstd": "true"}
"""The annotation of an index's instance whose layers are zstd."""

_REF_NAME = "org.opencontainers.image.ref.name"
_INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
_DOCKER_LAYERS = {
    f"application/vnd.oci.image.layer.v1.tar{oci}": (
        f"application/vnd.docker.image.rootfs.diff.tar{docker}"
    )
    for oci, docker in (("", ""), ("+gzip", ".gzip"), ("+zstd", ".zstd"))
}


@dataclass(frozen=True)
class Document:
    """A manifest or an index: some JSON under a digest, and everything it leads to."""

    manifest: bytes
    media_type: str
    platform: str
    manifests: dict[str, tuple[str, bytes]] = field(repr=False)
    """Digest to media type and bytes, of this document and of those below it."""
    blobs: dict[str, bytes] = field(repr=False)
    """Digest to bytes, of configs and layers."""

    @property
    def digest(self) -> str:
        return sha256(self.manifest)

    def descriptor(self) -> Json:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.manifest)}


@dataclass(frozen=True)
class Image(Document):
    config: bytes
    layers: list[Layer]

    @property
    def config_digest(self) -> str:
        return sha256(self.config)

    @property
    def diff_ids(self) -> list[str]:
        return [layer.diff_id for layer in self.layers]


@dataclass(frozen=True)
class Index(Document):
    instances: list[Document]


def image(
    layers: Sequence[Layer],
    *,
    platform: str = "linux/amd64",
    config_extra: Json | None = None,
    media_type: str = OCI_MANIFEST,
    annotations: Mapping[str, str] | None = None,
    edit_config: Callable[[Json], Json | None] | None = None,
    edit_manifest: Callable[[Json], Json | None] | None = None,
) -> Image:
    """An image of these layers, bottom first. As Docker schema 2 it loses the layers' annotations.

    Hooks as those of `chunked_layer`.
    """
    config: Json = {
        "created": "2023-11-14T22:13:20Z",
        **_platform(platform),
        "config": {"Env": ["PATH=/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [
            {"created": "2023-11-14T22:13:20Z", "created_by": f"layer {n}"}
            for n in range(len(layers))
        ],
    }
    config |= config_extra or {}
    config = edit_config(config) or config if edit_config else config
    config_bytes = dumps(config)

    docker = media_type == DOCKER_MANIFEST
    descriptors = [layer.descriptor() for layer in layers]
    if docker:
        for descriptor in descriptors:
            descriptor.pop("annotations", None)
            descriptor["mediaType"] = _DOCKER_LAYERS.get(
                descriptor["mediaType"], descriptor["mediaType"]
            )
    config_type = DOCKER_CONFIG if docker else OCI_CONFIG
    manifest: Json = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {
            "mediaType": config_type,
            "digest": sha256(config_bytes),
            "size": len(config_bytes),
        },
        "layers": descriptors,
    }
    if annotations:
        manifest["annotations"] = dict(annotations)
    manifest = edit_manifest(manifest) or manifest if edit_manifest else manifest
    data = dumps(manifest)
    return Image(
        manifest=data,
        media_type=media_type,
        platform=platform,
        manifests={sha256(data): (media_type, data)},
        blobs={sha256(config_bytes): config_bytes} | {layer.digest: layer.blob for layer in layers},
        config=config_bytes,
        layers=list(layers),
    )


def index(
    instances: Iterable[Document | tuple[Document, Mapping[str, str]]],
    *,
    media_type: str = OCI_INDEX,
    edit: Callable[[Json], Json | None] | None = None,
) -> Index:
    """An index, or a Docker manifest list, of instances in this order, with their annotations."""
    documents: list[Document] = []
    descriptors: list[Json] = []
    for item in instances:
        document, annotations = item if isinstance(item, tuple) else (item, {})
        documents.append(document)
        descriptor = document.descriptor() | {"platform": _platform(document.platform)}
        descriptors.append(descriptor | ({"annotations": dict(annotations)} if annotations else {}))
    value: Json = {"schemaVersion": 2, "mediaType": media_type, "manifests": descriptors}
    data = dumps(edit(value) or value if edit else value)
    manifests = {sha256(data): (media_type, data)}
    blobs: dict[str, bytes] = {}
    for document in documents:
        manifests |= document.manifests
        blobs |= document.blobs
    return Index(data, media_type, "", manifests, blobs, documents)


def _platform(text: str) -> Json:
    return dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False))


# ── layouts ──


@dataclass(frozen=True)
class Layout:
    """What a registry or an OCI layout holds: tags, documents, blobs."""

    tags: dict[str, str] = field(default_factory=dict)
    """Tag to the digest of a document."""
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)

    def index_json(self) -> bytes:
        """The `index.json` of a layout directory."""
        found: list[Json] = []
        for tag, digest in self.tags.items():
            media_type, data = self.manifests[digest]
            descriptor: Json = {"mediaType": media_type, "digest": digest, "size": len(data)}
            found.append(descriptor | {"annotations": {_REF_NAME: tag}})
        return dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found})

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """All that lies in `blobs/`: digest and bytes."""
        yield from ((digest, data) for digest, (_, data) in self.manifests.items())
        yield from self.blobs.items()


def layout(images: Mapping[str, Document]) -> Layout:
    """A layout of these images by tag."""
    found = Layout()
    for tag, document in images.items():
        found.tags[tag] = document.digest
        found.manifests.update(document.manifests)
        found.blobs.update(document.blobs)
    return found


def write_layout(directory: Path, images: Mapping[str, Document] | Layout) -> Path:
    """Write an OCI layout directory, made if it is not there; returns it."""
    content = images if isinstance(images, Layout) else layout(images)
    for digest, data in content:
        algorithm, _, name = digest.partition(":")
        path = directory / "blobs" / algorithm / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (directory / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    (directory / "index.json").write_bytes(content.index_json())
    return directory


def read_layout(directory: Path) -> Layout:
    """An OCI layout directory in memory. AssertionError when a blob does not match its name."""
    found = Layout()

    def load(digest: str) -> bytes:
        algorithm, _, name = digest.partition(":")
        data = (directory / "blobs" / algorithm / name).read_bytes()
        assert hashlib.new(algorithm, data).hexdigest() == name, f"{digest} holds something else"
        return data

    def visit(descriptor: Json) -> None:
        digest, media_type = descriptor["digest"], descriptor["mediaType"]
        data = load(digest)
        found.manifests[digest] = (media_type, data)
        document = json.loads(data)
        if media_type in _INDEXES:
            for instance in document["manifests"]:
                visit(instance)
        else:
            for blob in (document["config"], *document["layers"]):
                if blob["digest"] not in found.blobs:
                    found.blobs[blob["digest"]] = load(blob["digest"])

    for descriptor in json.loads((directory / "index.json").read_bytes())["manifests"]:
        visit(descriptor)
        if tag := descriptor.get("annotations", {}).get(_REF_NAME):
            found.tags[tag] = descriptor["digest"]
    return found
