"""Client calls that look after the store: images, verify, remove, gc, status, ingest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import BinaryIO

from zchunked.findings import Findings, Freed, Image, PullStatus
from zchunked.oci.digest import parse_digest
from zchunked.oci.platform import Platform, platform_of
from zchunked.operations.calls.client_store import OpenedStore
from zchunked.options import GcOptions
from zchunked.results import ImageEntry

# ruff: noqa: PLC0415 - what does the work is imported when it is asked for


class StoreCalls(OpenedStore):
    """The part of a client that these calls live in."""

    def images(self) -> list[ImageEntry]:
        """The images of the store, newest first.

        Raises:
            LocalError: The store cannot be read.

        Example:
            >>> import zchunked
            >>> zchunked.Client("empty").images()
            []
        """
        from zchunked.maintenance.usage import usage

        with self._read_only_store() as store:
            rows = usage(store)
        return [
            ImageEntry(
                row.image.name,
                row.image.platform,
                row.image.manifest,
                row.image.root,
                row.size,
                row.shared,
                row.proved,
                datetime.fromtimestamp(row.image.pulled, UTC),
            )
            for row in rows
        ]

    def verify(
        self,
        image: str | None = None,
        *,
        platform: str | Platform | None = None,
        quick: bool = False,
    ) -> Findings:
        """Hash what the store holds and drop what is damaged; the next pull fetches it again.

        Args:
            image: One stored image, as `export` takes it. None: the whole store.
            platform: Of that image. None: any.
            quick: Look at files and their lengths alone, and hash nothing.

        Returns:
            How much was looked at, and `damaged`, what is gone now.

        Raises:
            NotFoundError: The store lacks the image.
            LocalError: The store cannot be read.

        Example:
            >>> import zchunked
            >>> zchunked.Client("store").verify().damaged
            []
        """
        from zchunked.maintenance.verify import verify
        from zchunked.store.images import find

        store = self._store()
        only = (
            [one.manifest for one in find(store, image, platform_of(platform))]
            if image is not None
            else None
        )
        return verify(store, only=only, is_quick=quick)

    def remove(self, *images: str, platform: str | Platform | None = None) -> list[Image]:
        """Forget images, all or none of them; `gc` then frees what no other image needs.

        Args:
            images: As `export` takes them.
            platform: Of these images. None: any.

        Returns:
            What was forgotten.

        Raises:
            NotFoundError: The store lacks one of them.

        Example:
            >>> import zchunked
            >>> client = zchunked.Client("store")
            >>> digest = client.pull("oci:demo:demo-v1").manifest_digest
            >>> [image.name for image in client.remove(digest)]
            ['oci:demo:demo-v1']
        """
        from zchunked.store.images import find

        store, chosen = self._store(), platform_of(platform)
        found = list(dict.fromkeys(one for text in images for one in find(store, text, chosen)))
        store.collector().forget_names((one.name, one.platform) for one in found)
        return found

    def gc(self, options: GcOptions | None = None, *, keep: Sequence[str] | None = None) -> Freed:
        """Free what no image and no running pull needs, beside other processes.

        What this client has read or pulled since it was opened counts as in use: close it before,
        where that shall go.

        Args:
            options: Budgets in bytes and seconds. None: no budget.
            keep: Images, as `export` takes them; all others go. None: as the options say.

        Returns:
            What went, and how many bytes that freed.

        Raises:
            NotFoundError: The store lacks an image that is to be kept.
            LocalError: The file system has no locks, or fails.

        Example:
            >>> import zchunked
            >>> zchunked.Client("store").gc().blobs
            0
        """
        from zchunked.maintenance.gc import collect
        from zchunked.store.images import find

        options = options or GcOptions()
        if keep is not None:
            with self._fresh_store() as store:
                kept = frozenset(
                    (one.name, one.platform) for text in keep for one in find(store, text)
                )
            options = replace(options, keep=kept)
        return collect(self._place(), options)

    def keep_within(self, max_bytes: int, *, since: float = math.inf) -> None:
        """Free what is above a budget, the images pulled longest ago first.

        Below it, only the sizes of files are looked at.

        Args:
            max_bytes: Of all files of the store.
            since: Seconds since 1970: what was pulled from then on stays. What running processes
                use stays anyway, and what this client has read since it was opened.

        Raises:
            LocalError: The file system has no locks, or fails.

        Example:
            >>> import zchunked
            >>> client = zchunked.Client("store")
            >>> client.pull("oci:demo:demo-v1").platform
            'linux/amd64'
            >>> client.close()
            >>> client.keep_within(1000)
            >>> client.images()
            []
        """
        from zchunked.maintenance.gc import keep_within

        keep_within(self._place(), max_bytes, since=since)

    def status(self) -> list[PullStatus]:
        """Pulls and ingests that run or were interrupted, in any process; oldest first.

        Returns:
            One entry for each, with its layers: bytes that are here, and bytes in all.

        Raises:
            LocalError: The store cannot be read.

        Example:
            >>> import zchunked
            >>> zchunked.Client("store").status()
            []
        """
        from zchunked.maintenance.status import status

        with self._fresh_store() as store:
            return status(store)

    def ingest(self, digest: str, source: BinaryIO, *, size: int | None = None) -> int:
        """Take a blob whose digest is known beforehand into the store, so that pulls find it there.

        Args:
            digest: `sha256:` and 64 hex digits.
            source: Its bytes, from the first one on. What an earlier call got of them is not
                written again.
            size: In bytes. None: as long as a file is; of a pipe, what is cut short is not kept
                then.

        Returns:
            Its size in bytes.

        Raises:
            IntegrityError: The bytes are others than promised, or too few.
            FormatError: That is no digest.
            LocalError: The disk fails.

        Example:
            >>> import hashlib, io, zchunked
            >>> data = b"a blob"
            >>> digest = "sha256:" + hashlib.sha256(data).hexdigest()
            >>> zchunked.Client("store").ingest(digest, io.BytesIO(data))
            6
        """
        from zchunked.operations.ingest import ingest

        return ingest(self._store(), parse_digest(digest), size, source)
