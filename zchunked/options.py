"""How to pull: what a person may choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.platform import Platform, this_platform


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
        """Bytes per second to reckon with, None where nobody knows."""
        rate = self.rate or measured
        if self.limit_rate is None:
            return rate
        return min(rate or self.limit_rate, self.limit_rate)


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
