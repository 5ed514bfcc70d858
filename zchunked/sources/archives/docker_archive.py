"""Read an archive of `docker save` as the OCI layout that it would be."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from zchunked.errors import FormatError, InvalidReferenceError, LimitError, NotFoundError
from zchunked.interfaces import Pieces
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import Digest, digest_of
from zchunked.oci.documents import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_TAR,
    OCI_MANIFEST,
    Descriptor,
    parse_config,
)
from zchunked.oci.reference import LayoutReference, parse_reference
from zchunked.ranges import ByteRange
from zchunked.sources.archives.archive import SPANS, Member, TarObjects
from zchunked.sources.layout import blob_path
from zchunked.sources.objects.interface import Objects

_REF_NAME = "org.opencontainers.image.ref.name"
_PACKED = {b"\x1f\x8b": "+gzip", b"\x28\xb5\x2f\xfd": "+zstd"}


def open_archive(
    reference: LayoutReference, *, spool: Path | None = None, limits: Limits = DEFAULT_LIMITS
) -> Objects:
    """The caller closes it. Nothing is opened before its first use."""
    members = TarObjects(Path(reference.base), reference.name, spool=spool, limits=limits)
    return members if reference.scheme == "oci-archive" else SavedObjects(members, limits=limits)


class _Saved(msgspec.Struct):
    """One image in `manifest.json`, in its own spelling."""

    Config: str
    RepoTags: list[str | None] | None = None
    Layers: list[str] | None = None


_SAVED = msgspec.json.Decoder(list[_Saved])


class SavedObjects:
    """The OCI layout of a docker archive as `Objects`, with a manifest made for its layers.

    +Names are in the index. Layers are hashed only where they are compressed: a plain one is its
    own diff ID.
    """

    def __init__(self, members: TarObjects, *, limits: Limits = DEFAULT_LIMITS) -> None:
        """`members` are closed with this."""
        self.name = members.name
        self._members, self._limits = members, limits
        self._lock = threading.Lock()
        self._made: dict[str, bytes] = {}
        self._paths: dict[str, str] = {}
        self._hashed: dict[Member, Digest] = {}
        self._is_ready = False

    def close(self) -> None:
        self._members.close()

    def get(self, path: str, most: int) -> bytes:
        self._prepare()
        if (data := self._made.get(path)) is None:
            return self._members.get(self._member_of(path), most)
        if len(data) > most:
            raise LimitError(f"{self.name}: {path} has {len(data)} bytes, the limit is {most}")
        return data

    def spans_per_request(self, path: str, blob: Descriptor) -> int:
        return SPANS

    def read(self, path: str, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        self._prepare()
        yield from self._members.read(self._member_of(path), blob, spans)

    def _member_of(self, path: str) -> str:
        try:
            return self._paths[path]
        except KeyError:
            raise NotFoundError(f"{self.name}: there is no {path} in it") from None

    def _prepare(self) -> None:
        with self._lock:
            if self._is_ready:
                return
            entries = [entry for saved in self._saved() for entry in self._entries(saved)]
            index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
            self._made["index.json"] = msgspec.json.encode(index)
            self._is_ready = True

    def _saved(self) -> list[_Saved]:
        if not self._members.has("manifest.json"):
            raise FormatError(
                f"{self.name} has no manifest.json; expected an archive of docker save since 1.10; "
                "or say oci-archive:"
            )
        data = self._members.get("manifest.json", self._limits.manifest_bytes)
        try:
            saved = _SAVED.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise FormatError(
                f"{self.name}: manifest.json is not what it should be: {str(error)[:200]}"
            ) from error
        most = self._limits.layers_count
        if len(saved) > self._limits.instances_count or any(
            len(one.Layers or []) > most for one in saved
        ):
            raise LimitError(
                f"{self.name}: manifest.json lists more images or layers than the limits"
            )
        return saved

    def _entries(self, saved: _Saved) -> list[dict[str, object]]:
        """One for each name, or one without."""
        config = self._members.get(saved.Config, self._limits.manifest_bytes)
        names = saved.Layers or []
        diff_ids = parse_config(config, len(names), limits=self._limits).diff_ids
        layers = [self._layer(name, diff_id) for name, diff_id in zip(names, diff_ids, strict=True)]
        self._paths[blob_path(digest_of(config))] = saved.Config
        manifest = msgspec.json.encode({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": layers,
        })  # fmt: skip
        self._made[blob_path(digest_of(manifest))] = manifest
        entry: dict[str, object] = {
            "mediaType": OCI_MANIFEST,
            "digest": digest_of(manifest),
            "size": len(manifest),
        }
        called: list[str] = []
        for tag in saved.RepoTags or []:
            with suppress(InvalidReferenceError):
                called.append(str(parse_reference(tag or "")))
        return [entry | {"annotations": {_REF_NAME: name}} for name in called] or [entry]

    def _layer(self, name: str, diff_id: Digest) -> dict[str, object]:
        try:
            member = self._members.find(name)
        except NotFoundError as error:
            raise FormatError(
                f"{self.name}: manifest.json lists layer {name!r:.200}, which is not in it"
            ) from error
        head = (
            b"".join(self._members.pieces(member, ByteRange(0, min(4, member.size))))
            if member.size
            else b""
        )
        kind = next((kind for magic, kind in _PACKED.items() if head.startswith(magic)), "")
        digest = self._digest_of(member) if kind else diff_id
        self._paths[blob_path(digest)] = name
        return {"mediaType": OCI_LAYER_TAR + kind, "digest": digest, "size": member.size}

    def _digest_of(self, member: Member) -> Digest:
        if member not in self._hashed:
            hasher = hashlib.sha256()
            for piece in self._members.pieces(member, ByteRange(0, member.size)):
                hasher.update(piece)
            self._hashed[member] = Digest(f"sha256:{hasher.hexdigest()}")
        return self._hashed[member]
