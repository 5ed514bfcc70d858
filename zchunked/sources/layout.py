"""An OCI image layout as a source: `index.json` names images, all else are blobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from zchunked.errors import ArtifactError, FormatError, IntegrityError, LimitError, NotFoundError
from zchunked.interfaces import Announcing, Document, Emit, Files, Pieces
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import Digest, digest_of, short, verify
from zchunked.oci.documents import OCI_INDEX, Descriptor, Index, Instance, parse_document
from zchunked.oci.reference import LayoutReference
from zchunked.ranges import ByteRange
from zchunked.sources.objects.interface import Objects

_NAMES = ("org.opencontainers.image.ref.name", "io.containerd.image.name")
_SHOWN_NAMES = 20
_VERSION_BYTES = 4096


Documents = Callable[[Digest], bytes | None]
"""A manifest or index by its digest, verified; None when it is not here."""


class _Version(msgspec.Struct):
    """The file `oci-layout`, in its own spelling."""

    imageLayoutVersion: str  # noqa: N815


_VERSION = msgspec.json.Decoder(_Version)


class LayoutSource:
    """One image of one layout. Tries once, unless a manifest arrived damaged. Thread-safe."""

    def __init__(
        self,
        reference: LayoutReference,
        objects: Objects,
        *,
        files: Files | None = None,
        is_local: bool = False,
        documents: Documents | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """`objects` are closed with the source.

        `files`: the same blobs, where they are files of this machine; `is_local`: nothing of them
        comes over a network.

        `documents`: manifests that are here already, so that a pull that has nothing to do asks for
        the index alone.
        """
        self.files = files
        self.is_local = is_local or files is not None
        self._documents = documents
        self._reference, self._objects, self._limits = reference, objects, limits

    def close(self) -> None:
        self._objects.close()

    def set_listener(self, emit: Emit) -> None:
        """As `Announcing.set_listener`."""
        if isinstance(self._objects, Announcing):
            self._objects.set_listener(emit)

    def manifest(self, digest: Digest | None) -> Document:
        """Raises IntegrityError too: only the index says what the image of a tag must be."""
        which = digest or self._reference.digest
        if which is not None:
            return Document(self._objects.get(blob_path(which), self._limits.manifest_bytes), "")
        where = self._objects.name
        if self.is_local:
            self._check_version()
        data = self._objects.get("index.json", self._limits.manifest_bytes)
        index, tag, cost = parse_index(data, where, self._limits), self._reference.tag, len(data)
        try:
            images = find_image(index, tag, where)
        except NotFoundError:
            index, looked_at = self._without_artifacts(index, tag)
            cost += looked_at
            images = find_image(index, tag, where)
        if len(images) > 1:
            return Document(_index_of(images), OCI_INDEX, cost, was_here=True)
        listed = images[0].descriptor
        known = self._documents(listed.digest) if self._documents else None
        if known is not None:
            return Document(known, listed.media_type, cost, was_here=True)
        return Document(self._document(listed), listed.media_type, cost)

    def _without_artifacts(self, index: Index, tag: str | None) -> tuple[Index, int]:
        """The index without artifacts and manifests that it lists twice, and what that cost.

        Tools list the images of an index beside it, and signatures as if they were images. Also how
        many bytes that cost. Nothing is looked at where no choice is left to make, or too many.
        """
        open_ = [
            one for one in index.instances if one.is_image and (tag is None or tag in _names(one))
        ]
        if not 1 < len({one.descriptor.digest for one in open_}) <= self._limits.looked_at_count:
            return index, 0
        dropped: set[Digest] = set()
        named = {one.descriptor.digest for one in open_ if tag is None and _names(one)}
        cost = 0
        for one in open_:
            listed = one.descriptor
            data = self._documents(listed.digest) if self._documents else None
            try:
                if data is None:
                    data = self._document(listed)
                    cost += len(data)
                document = parse_document(data, listed.media_type, limits=self._limits)
            except ArtifactError:
                dropped.add(listed.digest)
            except (FormatError, IntegrityError, NotFoundError):
                continue  # an entry that cannot be read stays one to choose
            else:
                if isinstance(document, Index):
                    dropped |= {inner.descriptor.digest for inner in document.instances} - named
        return Index(
            tuple([one for one in index.instances if one.descriptor.digest not in dropped])
        ), cost

    def _check_version(self) -> None:
        """Check the layout's version.

        The file may be missing; over a network it would cost a request.
        """
        where = f"{self._objects.name}/oci-layout"
        try:
            data = self._objects.get("oci-layout", _VERSION_BYTES)
            version = _VERSION.decode(data).imageLayoutVersion
        except NotFoundError:
            return
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise FormatError(
                f"{where} says no version of the layout: {str(error)[:200]}"
            ) from error
        if not version.startswith("1."):
            raise FormatError(
                f"{where}: invalid layout version; expected 1.0.0, got {version!r:.40}"
            )

    def _document(self, listed: Descriptor) -> bytes:
        most = self._limits.manifest_bytes
        what = f"{self._objects.name}: manifest {short(listed.digest)}"
        if listed.size > most:
            raise LimitError(f"{what} is listed with {listed.size} bytes, the limit is {most}")
        data = self._objects.get(blob_path(listed.digest), most)
        if digest_of(data) != listed.digest:
            data = self._objects.get(blob_path(listed.digest), most)  # damaged on the way, perhaps
            verify(data, listed.digest, what)
        return data

    def spans_per_request(self, blob: Descriptor) -> int:
        return self._objects.spans_per_request(blob_path(blob.digest), blob)

    def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        yield from self._objects.read(blob_path(blob.digest), blob, spans)


def blob_path(digest: Digest) -> str:
    algorithm, _, name = digest.partition(":")
    return f"blobs/{algorithm}/{name}"


def parse_index(data: bytes, where: str, limits: Limits = DEFAULT_LIMITS) -> Index:
    """Raises FormatError for what is not an `index.json`, usually a web page."""
    try:
        index = parse_document(data, OCI_INDEX, limits=limits)
    except LimitError as error:
        raise LimitError(f"{where}/index.json: {error}") from error
    except FormatError as error:
        raise FormatError(
            f"{where}/index.json: {error}; is this the top of an OCI layout?"
        ) from error
    if not isinstance(index, Index):
        raise FormatError(
            f"{where}/index.json is an image manifest; expected the index of an OCI layout"
        )
    return index


def find_image(index: Index, tag: str | None, where: str) -> list[Instance]:
    """The entry of this name; without a name, of the layout's only image. Pure.

    Several, if they differ by platform alone. NotFoundError when there is none, or a choice to
    make.
    """
    images = [one for one in index.instances if one.is_image]
    found = images if tag is None else [one for one in images if tag in _names(one)]
    distinct = list({one.descriptor.digest: one for one in found}.values())
    platforms = {str(one.platform) for one in distinct if one.platform}
    if len(distinct) == 1 or (tag is not None and distinct and len(platforms) == len(distinct)):
        return distinct
    if (
        tag is None
        and len(platforms) == len(distinct) > 1
        and len({_names(one) for one in distinct}) == 1
    ):
        return distinct
    if tag is not None and not distinct:
        raise NotFoundError(f"{where}: no image is called {tag!r:.200}; {_offer(images)}")
    if tag is not None:
        raise NotFoundError(
            f"{where}: {len(distinct)} images are called {tag!r:.200}; "
            f"{_offer(distinct, by_name=False)}"
        )
    if not distinct:
        raise NotFoundError(f"{where}: the layout holds no image")
    raise NotFoundError(
        f"{where}: the layout holds {len(distinct)} images, so say which; {_offer(distinct)}"
    )


def _names(image: Instance) -> tuple[str, ...]:
    annotations = image.descriptor.annotations
    return tuple(annotations[key] for key in _NAMES if annotations.get(key))


def _offer(images: Sequence[Instance], *, by_name: bool = True) -> str:
    names = sorted({name for image in images for name in _names(image)[:1]}) if by_name else []
    shown = [f":{name[:100]}" for name in names] or [
        f"@{image.descriptor.digest}" for image in images
    ]
    more = f" and {len(shown) - _SHOWN_NAMES} more" if len(shown) > _SHOWN_NAMES else ""
    text = ", ".join(shown[:_SHOWN_NAMES])
    printable = "".join(
        [sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text]
    )
    return f"it offers {printable}{more}" if shown else "it offers nothing"


def _index_of(images: Sequence[Instance]) -> bytes:
    """Entries that share a name and differ by platform, as the index that they stand for."""
    entries: list[dict[str, Any]] = []
    for image in images:
        listed, platform = image.descriptor, image.platform
        entry: dict[str, Any] = {
            "mediaType": listed.media_type,
            "digest": listed.digest,
            "size": listed.size,
        }
        if platform:
            shown = {
                "os": platform.os,
                "architecture": platform.architecture,
                "variant": platform.variant,
            }
            entry["platform"] = {key: value for key, value in shown.items() if value}
        entries.append(
            entry | ({"annotations": dict(listed.annotations)} if listed.annotations else {})
        )
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})


def check_size(blob: Descriptor, size: int, where: str) -> None:
    """Raises IntegrityError for a blob that is cut short or something else."""
    if size != blob.size:
        raise IntegrityError(
            f"{where}: blob {short(blob.digest)} has {size} bytes there, its descriptor promises "
            f"{blob.size}; the layout is damaged or still being written"
        )
