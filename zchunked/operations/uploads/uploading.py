"""Open a registry for uploads: parse TARGET, choose repositories to mount from, make a pusher."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace

from zchunked.download.session import Session
from zchunked.errors import PermanentError, TransferError, UsageError, ZPullError
from zchunked.oci.quoting import typed as quoted
from zchunked.oci.reference import ImageReference, Reference, is_repository, parse_image
from zchunked.operations.context import Context
from zchunked.options import StallLimits
from zchunked.push.push import Pusher
from zchunked.results import Uploaded
from zchunked.sources import connect
from zchunked.sources.registry_upload import RegistryUploads
from zchunked.sources.traffic import Traffic

_ENGINES = ("docker", "podman", "containerd")
_MOST_UPLOADS = 4  # at a time: more of them only make each one slower


def uploaded_by(pusher: Pusher) -> Uploaded:
    return Uploaded(**asdict(pusher.pushed))


@contextmanager
def resumable(pusher: Pusher) -> Iterator[None]:
    """Errors of a push carry what went up, and say that it stays there."""
    try:
        yield
    except TransferError as error:
        hint = (
            ""
            if isinstance(error, PermanentError)
            else "; what arrived stays there, run the same command to resume"
        )
        # In the words of a push, to which those of a pull add nothing
        failure = PermanentError(f"{error}{hint}")
        failure.uploaded = uploaded_by(pusher)
        raise failure from error
    except ZPullError as error:
        error.uploaded = uploaded_by(pusher)
        raise


def registry_target(text: str, *, offline: bool = False) -> Reference:
    """Where to push. UsageError for anything but a registry, and for a digest."""
    scheme, _, name = text.partition(":")
    expected = f"invalid TARGET: expected a registry's reference, got {quoted(text, 200)}"
    # as the name of a repository it would be one of Docker Hub's own
    if scheme in _ENGINES and not name.startswith("//"):
        raise UsageError(f"{expected}; `zpull pull SOURCE --to {scheme}:` gives an image to it")
    if scheme == "docker-archive":
        raise UsageError(f"{expected}; such an archive holds plain tars, write oci-archive:FILE")
    target = parse_image(text)
    if not isinstance(target, Reference):
        raise UsageError(f"{expected}; `zpull publish` brings images elsewhere")
    if target.digest is not None:
        raise UsageError(
            f"invalid TARGET: expected a tag, got {quoted(text, 200)}; a digest is SOURCE's"
        )
    if offline:
        raise UsageError(f"{target.name} is behind a network, which --offline forbids")
    return target


def for_source(context: Context, source: ImageReference, target: Reference) -> Context:
    """Credentials that were given are for TARGET."""
    if isinstance(source, Reference) and source.host != target.host:
        return replace(context, connection=replace(context.connection, credentials=None))
    return context


def open_uploads(
    context: Context, target: Reference, traffic: Traffic, mount_from: Sequence[str] = ()
) -> RegistryUploads:
    """Open a repository for uploads; the caller closes it."""
    return connect.open_uploads(target, context.network(traffic), mount_from)


def mounted_from(
    source: ImageReference, target: Reference, named: Sequence[str] = ()
) -> tuple[str, ...]:
    """Repositories to mount from, without the registry's name, and without TARGET itself.

    UsageError for what cannot be one.
    """
    names = [text.removeprefix(f"{target.host}/") for text in named]
    for name in names:
        if not is_repository(name):
            raise UsageError(
                f"invalid --mount-from: expected a repository of {target.host}, without a tag, "
                f"got {quoted(name, 200)}"
            )
    if isinstance(source, Reference) and source.host == target.host:
        names.append(source.repository)
    return tuple(dict.fromkeys(name for name in names if name != target.repository))


def pusher_of(
    context: Context, registry: RegistryUploads, mount_from: Sequence[str] = ()
) -> Pusher:
    """A pusher with a session of its own; the deadline counts from now."""
    options = context.options
    session = Session(
        Traffic(time.monotonic),
        jobs=min(options.jobs, _MOST_UPLOADS),
        patience=options.patience,
        stall_limits=StallLimits(options.stall_limits.deadline),
        show=context.show,
    )
    return Pusher(registry, context.store.hints, session, mount_from)
