"""Options and Connection: what a caller may choose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.platform import Platform, this_platform

DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long failures of the network are borne.

    Args:
        patience: Seconds of outage to tolerate before giving up. 0: fail at once.
        retries: The most retries of one call. None: as many as patience allows.

    Example:
        >>> import zchunked
        >>> zchunked.Patience(600).retries is None
        True
    """

    patience: float = 60.0
    retries: int | None = None


@dataclass(frozen=True, slots=True)
class StallLimits:
    """When to give up although the network works.

    Args:
        deadline: Seconds from the start, whatever has come by then. None: never.
        min_rate: Bytes per second over ten seconds, below which a pull is given up. None: never.

    Example:
        >>> import zchunked
        >>> zchunked.StallLimits(deadline=3600, min_rate=1000).deadline
        3600
    """

    deadline: float | None = None
    min_rate: float | None = None


@dataclass(frozen=True, slots=True)
class GapOptions:
    """Which bytes may be fetched that are not needed.

    Args:
        exact: End with the registry's own blobs, put together from what is stored and the rest.
        max_gap: The most unneeded bytes to buy to save a request. 0: none, as `lean`. None: by the
            link.
        lean: Fetch the fewest bytes, for a metered link; tars are rebuilt, and have other digests.

    Example:
        >>> import zchunked
        >>> zchunked.Options(gaps=zchunked.GapOptions(exact=True)).gaps.lean
        False
    """

    exact: bool = False
    max_gap: int | None = None
    lean: bool = False

    @property
    def is_metered(self) -> bool:
        """Whether bytes count more than anything else."""
        return (self.lean or self.max_gap == 0) and not self.exact


@dataclass(frozen=True, slots=True)
class Options:
    """How to pull.

    Args:
        platform: Which image of an index to take. The default is this machine's.
        jobs: Connections at a time, from 1 to 64.
        patience: How long failures are borne.
        stall_limits: When to give up although the network works.
        gaps: Which bytes may be fetched that are not needed.
        max_bytes: Refuse a pull that would fetch more bytes. None: no limit.
        rate: Bytes per second of the link to reckon with. None: as measured.
        limit_rate: Receive no more bytes per second, all connections together. None: no limit.
        seeds: Folders, tar files and OCI layouts of this machine whose files may stand in for
            chunks.
        offline: Send no request; fail with NotFoundError where a byte is missing.
        prove: Hold each layer's tar against its diff ID in the pull, and not when a tar is first
            made of it.
        takes_turns: Wait for what another process is downloading into the store, and use it.
        limits: What numbers of a peer are held against.

    Example:
        >>> import zchunked
        >>> metered = zchunked.Options(max_bytes=50_000_000, patience=zchunked.Patience(600))
        >>> zchunked.Client("store", options=metered).options.max_bytes
        50000000
    """

    platform: Platform = field(default_factory=this_platform)
    jobs: int = 8
    patience: Patience = field(default_factory=Patience)
    stall_limits: StallLimits = field(default_factory=StallLimits)
    gaps: GapOptions = field(default_factory=GapOptions)
    max_bytes: int | None = None
    rate: float | None = None
    limit_rate: float | None = None
    seeds: tuple[Path, ...] = ()
    offline: bool = False
    prove: bool = False
    takes_turns: bool = True
    limits: Limits = DEFAULT_LIMITS

    def link_rate(self, measured: float | None) -> float | None:
        """Bytes per second to assume, None where unknown."""
        rate = self.rate or measured
        if self.limit_rate is None:
            return rate
        return min(rate or self.limit_rate, self.limit_rate)


@dataclass(frozen=True, slots=True)
class GcOptions:
    """What may stay in a store.

    Args:
        max_bytes: Of all its files; the images pulled longest ago go first. None: no limit.
        max_age: Seconds since an image was last pulled. None: no limit.
        keep: Nothing but these images, by name and platform. None: all.
        keep_last: So many images, those pulled last. None: all.
        expiry: Seconds since the last byte of an interrupted download.
        since: Seconds since 1970: what was pulled or begun from then on is never given up for
            `max_bytes`.
        is_dry: Only say what would go.

    Example:
        >>> import zchunked
        >>> month = zchunked.GcOptions(max_bytes=20_000_000_000, max_age=30 * 86400.0)
        >>> zchunked.Client("store").gc(month).over
        0
    """

    max_bytes: int | None = None
    max_age: float | None = None
    keep: frozenset[tuple[str, str]] | None = None
    keep_last: int | None = None
    expiry: float = 14 * DAY
    since: float = math.inf
    is_dry: bool = False


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How to be a registry through which the engines of a machine pull.

    Args:
        listen: `HOST:PORT`, `[IPv6]:PORT`, or a port of loopback; port 0 is any that is free.
        tls_cert: File of a certificate, to serve https. None: http, on loopback alone.
        tls_key: File of its key.
        insecure_listen: Serve other machines unencrypted; they pull with your credentials.
        allow: Serve these upstreams alone, `HOST[/PREFIX]`. Empty: well-known ones and those of
            registries.conf.
        upstream: Names for hosts that have a port, `NAME=HOST[:PORT]`.
        token: File of a token that clients have to know. None: any client.
        stale: Seconds for which the last answer to a tag is good while its upstream is down.
        prefetch: Pull an image's layers once its manifest was asked for.
        rest: Seconds without a request, until a collection may take what was served. None: never.
        max_bytes: What the store may weigh after each rest. None: no limit.

    Example:
        >>> import zchunked
        >>> zchunked.ServeSettings(listen="5056", upstream=("lab=lab.example:5000",)).stale
        3600.0
    """

    listen: str = "127.0.0.1:5055"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure_listen: bool = False
    allow: tuple[str, ...] = ()
    upstream: tuple[str, ...] = ()
    token: Path | None = None
    stale: float = 3600.0
    prefetch: bool = True
    rest: float | None = 1.0
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach registries and web servers.

    Args:
        authfile: Credentials, as podman and docker keep them. None: where these keep them.
        credentials: User and password, for the host of the reference alone. None: from files.
        tls_verify: False accepts any certificate, and plain http where https is refused.
        plain_http: Speak http instead of https.
        cert_dir: CA certificates (`*.crt`) and client ones (`*.cert` with `*.key`), for all hosts.
        registries_conf: Mirrors, other locations and blocked registries. None: where podman looks.
        stall_timeout: Seconds without a byte until a connection counts as broken. None: 10, or half
            the patience where that is less.
        environment: Where credentials and proxies are looked for. None: this process's own.

    Example:
        >>> import zchunked
        >>> zchunked.Connection(credentials=("me", "secret"))  # passwords stay out of logs
        Connection(authfile=None, tls_verify=True, ...)
    """

    authfile: Path | None = None
    credentials: tuple[str, str] | None = field(default=None, repr=False)
    tls_verify: bool = True
    plain_http: bool = False
    cert_dir: Path | None = None
    registries_conf: Path | None = None
    stall_timeout: float | None = None
    environment: Mapping[str, str] | None = field(default=None, repr=False)
