"""Client calls that upload to a registry: push an image, and single uploads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zchunked.oci.platform import Platform, platform_of
from zchunked.oci.reference import parse_source
from zchunked.operations.calls.store import StoreCalls
from zchunked.receipt import Receipt
from zchunked.results import PushResult

if TYPE_CHECKING:
    from zchunked.sources.registry_upload import RegistryUploads

# ruff: noqa: PLC0415 - what does the work is imported when it is asked for


class RegistryCalls(StoreCalls):
    """The part of a client that these calls live in."""

    def push(
        self,
        image: str,
        target: str,
        *,
        platform: str | Platform | None = None,
        mount_from: Sequence[str] = (),
        referrers: bool = False,
    ) -> PushResult:
        """Upload what a registry lacks of an image: what the store has, else pulled first, whole.

        The same call resumes a push that ended early, in another process too: at the offset that
        the registry reports.

        Args:
            image: As `pull` takes it; also `docker:NAME` and `podman:NAME`, of an engine on this
                machine.
            target: `[docker://]host/repository[:tag]`.
            platform: As for `pull`; `all` pushes the whole index, with every image and attestation
                that it lists.
            mount_from: Repositories of the same registry that may have blobs already.
            referrers: Push signatures, attestations and SBOMs that refer to the image too.

        Returns:
            What the image is called there, and what was sent.

        Raises:
            As `pull`.

        Example:
            >>> import zchunked
            >>> try:
            ...     zchunked.Client("store").push("oci:demo:demo-v1", "oci:elsewhere")
            ... except zchunked.ZPullError as error:
            ...     error.exit_code  # not a registry: `publish` goes there
            2
        """
        from zchunked.operations.uploads.pushing import push
        from zchunked.operations.uploads.pushing_all import push_all
        from zchunked.operations.uploads.uploading import registry_target

        reference = parse_source(image)
        receipt = Receipt(str(reference))
        to = registry_target(target, offline=self.options.offline)
        if platform == "all":
            return push_all(
                self._context(None),
                reference,
                to,
                receipt,
                mount_from=mount_from,
                referrers=referrers,
            )
        context, chosen = self._context(platform), platform_of(platform)
        return push(
            context, reference, to, chosen, receipt, mount_from=mount_from, referrers=referrers
        )

    def uploads(self, repository: str) -> RegistryUploads:
        """The write side of a registry's repository, to upload blobs directly.

        `begin()` gives an `Upload` whose `location` is where bytes go, on whatever host, and whose
        `offset` says how many are there; `resumed(upload)` asks the registry for both again. Close
        what is returned.

        Args:
            repository: `host/repository`.

        Raises:
            UsageError: It names no registry.

        Example:
            >>> import zchunked
            >>> zchunked.Client("store").uploads("registry.example/app").name
            'registry.example/app'
        """
        from zchunked.operations.uploads.uploading import open_uploads, registry_target

        context = self._context(None)
        return open_uploads(context, registry_target(repository), context.traffic())
