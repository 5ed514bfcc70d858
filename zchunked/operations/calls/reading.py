"""Client calls that read: files of an image, single objects, and where blobs can be downloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zchunked.oci.platform import Platform, platform_of
from zchunked.oci.reference import parse_image
from zchunked.operations.calls.client_store import OpenedStore
from zchunked.results import FetchedObject, LocatedBlob

if TYPE_CHECKING:
    from zchunked.browse.tree import FileEntry

# ruff: noqa: PLC0415 - what does the work is imported when it is asked for


class ReadingCalls(OpenedStore):
    """The part of a client that these calls live in."""

    def files(self, image: str, *, platform: str | Platform | None = None) -> dict[str, FileEntry]:
        """List an image's files as a container sees them: layers applied, removed files left out.

        What the store has of the image is the image; one that it lacks is pulled first.

        Args:
            image: As `pull` takes it.
            platform: As for `pull`.

        Returns:
            Path, from the image's root and without a leading slash, to entry; sizes in bytes.

        Raises:
            FormatError: A layer's tar cannot be read.
            ZPullError: As `pull`.

        Example:
            >>> import zchunked
            >>> files = zchunked.Client("store").files("oci:demo:demo-v1")
            >>> min(entry.layer for entry in files.values())
            0
        """
        from zchunked.browse.files import list_files
        from zchunked.operations.browsing import image_in_store

        context = self._context(platform)
        stored = image_in_store(context, parse_image(image), platform_of(platform))
        return list_files(context.store, stored)

    def read(self, image: str, path: str, *, platform: str | Platform | None = None) -> bytes:
        """Read one file of an image; links are followed inside the image. It is held in memory.

        The layer that holds it is verified to its last byte before anything is returned.

        Args:
            image: As `pull` takes it; pulled first where the store lacks it.
            path: From the image's root, with or without a leading slash.
            platform: As for `pull`.

        Returns:
            The file's content.

        Raises:
            NotFoundError: There is no such file, or no such image.
            UsageError: The path is a directory or a device.
            ZPullError: As `files`.

        Example:
            >>> import zchunked
            >>> client = zchunked.Client("store")
            >>> files = client.files("oci:demo:demo-v1")
            >>> path = next(path for path, entry in files.items() if entry.kind == "file")
            >>> len(client.read("oci:demo:demo-v1", path)) == files[path].size
            True
        """
        from zchunked.browse.files import read_file
        from zchunked.operations.browsing import image_in_store

        context = self._context(platform)
        stored = image_in_store(context, parse_image(image), platform_of(platform))
        return read_file(context.store, stored, path)

    def fetch(
        self,
        image: str,
        digest: str | None = None,
        *,
        platform: str | Platform | None = None,
        media_type: str | None = None,
    ) -> FetchedObject:
        """Fetch one object of the image's repository: a manifest, or a blob by its digest.

        Args:
            image: As `pull` takes it.
            digest: Of a blob or manifest. None: what the reference names, as it is served.
            platform: With it, and without a digest, the manifest of the image for it.
            media_type: What the digest is of, where that is known; saves a question.

        Returns:
            The object, to be read at once or piece by piece.

        Raises:
            As `pull`.

        Example:
            >>> import json, zchunked
            >>> manifest = zchunked.Client("store").fetch("oci:demo:demo-v1").read()
            >>> json.loads(manifest)["schemaVersion"]
            2
        """
        from zchunked.operations.objects import fetch, object_digest

        reference = parse_image(image)
        return fetch(
            self._context(platform),
            reference,
            object_digest(digest),
            platform_of(platform),
            media_type,
        )

    def locate(
        self, image: str, digest: str | None = None, *, platform: str | Platform | None = None
    ) -> list[LocatedBlob]:
        """Say where an image's blobs can be downloaded directly, without downloading any.

        Args:
            image: As `pull` takes it.
            digest: One blob. None: the image's config and layers.
            platform: As for `pull`.

        Returns:
            One entry per blob, with a URL (or a path of this machine) and until when that is good.

        Raises:
            As `pull`.

        Example:
            >>> import zchunked
            >>> len(zchunked.Client("store").locate("oci:demo:demo-v1"))
            3
        """
        from zchunked.operations.objects import locate, object_digest

        reference = parse_image(image)
        return locate(
            self._context(platform), reference, object_digest(digest), platform_of(platform)
        )
