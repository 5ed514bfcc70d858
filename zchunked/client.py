"""The client: one store, and all that can be done with images; here pull, plan and export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zchunked.errors import UsageError, ZPullError
from zchunked.oci.platform import Platform, platform_of
from zchunked.oci.reference import parse_image
from zchunked.operations.calls.reading import ReadingCalls
from zchunked.operations.calls.serving import ServingCalls
from zchunked.receipt import Estimate, Receipt
from zchunked.results import Plan, PlannedLayer, PullResult

# What does the work is imported when it is asked for: `import zchunked` is quick, and so is `zpull
# --version`.
# ruff: noqa: PLC0415


class Client(ServingCalls, ReadingCalls):
    """Pulls images into one store, and does all else with them.

    The store is opened at the first use and closed by `close`, or at the end of a `with` block.
    Calls may be made from several threads at the same time; each call's events arrive on the thread
    that called. Other processes may use the same store meanwhile. Every error is a `ZPullError`;
    what arrived before it stays in the store, so the same call resumes. Ctrl-C during a call raises
    InterruptedPullError.

    Args:
        store: Folder that keeps downloaded bytes; made when it is missing. None: `zpull` in the
            user's cache folder.
        options: How to pull. None: the defaults.
        connection: How to reach registries. None: as podman and docker would.
        on_event: Called with each event of `zchunked.events`; must return soon, for the pull waits.

    Example:
        >>> import zchunked
        >>> with zchunked.Client(store="store") as client:
        ...     result = client.pull("oci:demo:demo-v1")
        ...     [image.reference for image in client.images()]
        ['oci:demo:demo-v1']
    """

    # ── calls ──

    def pull(
        self,
        image: str,
        *,
        to: str | Sequence[str] = (),
        platform: str | Platform | None = None,
        force: bool = False,
        load: bool = False,
    ) -> PullResult:
        """Download what is missing of an image, prove it, and write it where it is wanted.

        Args:
            image: `[docker://]host/repository[:tag][@digest]`, `oci:DIR[:tag]`,
                `oci+https://host/base[:tag]`, `s3://bucket/prefix[:tag]`.
            to: One or several of `oci:DIR[:name]`, `oci-archive:FILE[:name]`,
                `docker-archive:FILE[:name]`; or an engine of this machine, `docker:[NAME]`,
                `podman:[NAME]`, `containerd:[NAMESPACE/][NAME]`.
            platform: `os/architecture[/variant]` to take of an index. None: as the options say.
            force: Let `to` replace a file, or fill a folder, that holds no image.
            load: Stream an archive into the engine, even where it could pull from this process.

        Returns:
            The manifest's digest and the receipt.

        Raises:
            UsageError: The reference, a destination or the platform cannot be understood.
            NotFoundError: There is no such image, or none for the platform.
            AccessDeniedError: The registry refuses the credentials, or their absence.
            TransferError: The network failed for longer than the patience; the same call resumes.
            IntegrityError: Bytes are not what their digest promised, and no better ones could be
                had.
            FormatError: Metadata is malformed.
            LocalError: The disk or a destination fails.
            RefusedError: It would cost more than `max_bytes` allows.

        Example:
            >>> import zchunked
            >>> zchunked.Client("store").pull("oci:demo:demo-v1", to="oci:copy").exports[0].to
            'oci:copy'
        """
        from zchunked.operations.destinations.arguments import destinations_of

        reference = parse_image(image)
        receipt = Receipt(str(reference))
        destinations = destinations_of(to, force=force, load=load)
        # 0.15 s, in which engines answer
        from zchunked.operations.pulling import pull

        done = pull(self._context(platform), reference, destinations, receipt, force=force)
        return PullResult(str(reference), done.documents.manifest_digest, receipt)

    def pull_all(
        self,
        images: Sequence[str],
        *,
        to: str | Sequence[str] = (),
        platform: str | Platform | None = None,
        force: bool = False,
        load: bool = False,
    ) -> Iterator[PullResult | ZPullError]:
        """Pull several images at once over the same connections; shared bytes are fetched once.

        Args:
            images: As `pull` takes them.
            to: As `pull` has it; each of them gets all images.
            platform: As for `pull`.
            force: As for `pull`.
            load: As for `pull`.

        Returns:
            For each image, in order and as soon as it is known, what `pull` returns or the error
            that it raises: one that fails stops no other. Leaving the iterator early ends the pulls
            that are under way.

        Raises:
            UsageError: A reference, a destination or the platform cannot be understood, or a
                destination holds one image alone; before anything is done.

        Example:
            >>> import zchunked
            >>> images = ["oci:demo:demo-v1", "oci:demo:absent"]
            >>> with zchunked.Client("store") as client:
            ...     [type(one).__name__ for one in client.pull_all(images)]
            ['PullResult', 'NotFoundError']
        """
        from zchunked.operations.destinations.arguments import destinations_of
        from zchunked.operations.pulling_all import pull_all

        references = [parse_image(image) for image in images]
        destinations = destinations_of(to, force=force, load=load, images=len(references))
        outcomes = pull_all(self._context(platform), references, destinations, force=force)
        return (
            outcome
            if isinstance(outcome, ZPullError)
            else PullResult(receipt.reference, outcome.documents.manifest_digest, receipt)
            for receipt, outcome in outcomes
        )

    def plan(self, image: str, *, platform: str | Platform | None = None) -> Plan:
        """Say what a pull would cost. Fetches nothing but manifests and tables of contents.

        Args and raises as `pull` has them.

        Example:
            >>> import zchunked
            >>> zchunked.Client("store").plan("oci:demo:demo-v1").estimate.requests
            0
        """
        from zchunked.operations.planning import plan

        reference = parse_image(image)
        receipt = Receipt(str(reference))
        layers, _ = plan(self._context(platform), reference, receipt)
        return _plan_of(receipt, layers)

    def plan_all(
        self, images: Sequence[str], *, platform: str | Platform | None = None
    ) -> Iterator[Plan | ZPullError]:
        """Say what `pull_all` would cost: no image counts what one before it fetches.

        Args, returns and raises as `pull_all` has them.

        Example:
            >>> import zchunked
            >>> plans = zchunked.Client("empty").plan_all(["oci:demo:demo-v1", "oci:demo:demo-v2"])
            >>> [plan.estimate.bytes for plan in plans]  # a layout on this machine costs no traffic
            [0, 0]
        """
        from zchunked.operations.planning import plan_all

        references = [parse_image(image) for image in images]
        return (
            outcome if isinstance(outcome, ZPullError) else _plan_of(receipt, outcome)
            for receipt, outcome in plan_all(self._context(platform), references)
        )

    def export(
        self,
        image: str,
        to: str | Sequence[str],
        *,
        platform: str | Platform | None = None,
        force: bool = False,
        load: bool = False,
    ) -> PullResult:
        """Write a stored image somewhere, without the network.

        Args:
            image: The reference it was pulled by, `name@digest`, a digest, or the unique beginning
                of one.
            to: Destinations, as `pull` takes them; at least one.
            platform: Of the stored image, where several were pulled by that name. None: the newest.
            force: As for `pull`.
            load: As for `pull`.

        Returns:
            The manifest's digest and a receipt with what was written.

        Raises:
            UsageError: Nothing to write to, or several images fit.
            NotFoundError: The store lacks the image or parts of it.
            IntegrityError: The disk has spoilt it; pull it again.
            LocalError: A destination fails.

        Example:
            >>> import zchunked
            >>> client = zchunked.Client("store")
            >>> digest = client.pull("oci:demo:demo-v1").manifest_digest
            >>> client.export(digest, "oci-archive:demo.tar").manifest_digest == digest
            True
        """
        from zchunked.operations.destinations.arguments import destinations_of
        from zchunked.operations.destinations.exporting import export_stored

        destinations = destinations_of(to, force=force, load=load)
        if not destinations:
            raise UsageError("export needs --to DEST")
        context = self._context(platform)
        receipt = export_stored(context, image, platform_of(platform), destinations, force=force)
        return PullResult(receipt.reference, receipt.manifest_digest or "", receipt)


def _plan_of(receipt: Receipt, layers: Sequence[PlannedLayer]) -> Plan:
    estimate = receipt.estimate or Estimate(0, 0, None)
    return Plan(receipt.reference, receipt.manifest_digest or "", estimate, tuple(layers), receipt)
