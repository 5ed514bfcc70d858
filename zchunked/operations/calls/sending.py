"""Client calls that write an image elsewhere: publish it, or convert its layers."""

from __future__ import annotations

from dataclasses import asdict

from zchunked.oci.platform import Platform, platform_of
from zchunked.oci.reference import parse_image, parse_source
from zchunked.operations.calls.registry import RegistryCalls
from zchunked.receipt import Receipt
from zchunked.results import ConvertResult, PublishResult, Sent

# ruff: noqa: PLC0415 - what does the work is imported when it is asked for


class SendingCalls(RegistryCalls):
    """The part of a client that these calls live in."""

    def publish(
        self, image: str, target: str, *, platform: str | Platform | None = None
    ) -> PublishResult:
        """Put an image where any web server or bucket can serve it; pull what is missing first.

        Args:
            image: As `pull` takes it.
            target: `DIR[:tag]`, `s3://bucket/prefix[:tag]`, `gs://…` or `az://…`; the tag is the
                image's unless given.
            platform: As for `pull`.

        Returns:
            Where it can be pulled from now, and what was sent.

        Raises:
            As `pull`.

        Example:
            >>> import zchunked
            >>> zchunked.Client("store").publish("oci:demo:demo-v1", "published").reference
            'oci:published:demo-v1'
        """
        from zchunked.export.destination import parse_target
        from zchunked.operations.uploads.publishing import publish

        reference = parse_image(image)
        receipt = Receipt(str(reference))
        to = parse_target(target)
        to = to.with_tag(to.tag or reference.tag)
        name, sent = publish(
            self._context(platform), reference, to, target, platform_of(platform), receipt
        )
        place = f"{to.name}{f':{to.tag}' if to.tag else ''}"
        return PublishResult(
            place, receipt.manifest_digest or "", name, Sent(**asdict(sent)), receipt
        )

    def check_target(self, target: str, *, force: bool = False) -> None:
        """Say whether `convert` could deliver an image there, before anything is pulled.

        Args:
            target: As `convert` takes it.
            force: As for `convert`.

        Raises:
            UsageError: It cannot be understood, or a registry is named and the options say offline.
            LocalError: What is there is no image, or cannot be written.

        Example:
            >>> import zchunked
            >>> zchunked.Client("store").check_target("oci:chunked:v1")
        """
        from zchunked.operations.delivery import Delivery

        Delivery(target, force=force, offline=self.options.offline)

    def convert(
        self,
        image: str,
        target: str,
        *,
        platform: str | Platform | None = None,
        level: int = 3,
        rewrite_timestamp: int | None = None,
        normalize: bool = False,
        against: str | None = None,
        add: bool = False,
        force: bool = False,
    ) -> ConvertResult:
        """Write an image's layers anew as zstd:chunked ones, so that updates of it come in parts.

        What the store lacks of the image is pulled first, whole. The same input gives the same
        bytes, and layers that are zstd:chunked already stay. Diff IDs and the image ID stay too,
        unless headers are rewritten. Nothing is written to the target before all layers are ready.

        Args:
            image: As `push` takes it; `docker-archive:-` reads standard input.
            target: `[docker://]host/repository[:tag]`, `oci:DIR[:tag]`, `oci-archive:FILE[:tag]`
                or `s3://bucket/prefix[:tag]`, `gs://…`, `az://…`.
            platform: Which image of an index; `all` converts each of them, and makes an index.
            level: Effort of the compression, from 1 to 19.
            rewrite_timestamp: Seconds since 1970; no file stays younger than this. None: as it is.
            normalize: Drop owners' names, access and change times from headers.
            against: An older image: say what an update from it costs, before and after. With the
                platform `all` that is the sum of those that both have.
            add: Make an index in which the old instances stand beside the new ones.
            force: Let `target` replace a file, or fill a folder, that holds no image.

        Returns:
            What the target names now, each image with its layers, and the sizes before and after.

        Raises:
            UsageError: The reference, the target or the platform cannot be understood.
            ZPullError: As `pull` and `push`; `converted` of the error says what was done by then.

        Example:
            >>> import zchunked
            >>> done = zchunked.Client("store").convert("oci:demo:plain-gzip", "oci:chunked:v1")
            >>> [layer.outcome for layer in done.images[0].layers]
            ['converted', 'converted']
        """
        from zchunked.convert.layers import ConvertSettings
        from zchunked.operations.converting import convert
        from zchunked.operations.delivery import Delivery

        reference = parse_source(image)
        old = parse_source(against) if against is not None else None
        how = ConvertSettings.of(level, rewrite_timestamp, normalize=normalize)
        delivery = Delivery(target, force=force, offline=self.options.offline)
        is_all = platform == "all"
        context = self._context(None if is_all else platform)
        return convert(
            context, reference, delivery, how, all_platforms=is_all, against=old, add=add
        )
