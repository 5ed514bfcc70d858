"""Settings of one command, as frozen values: no other file knows how they were typed."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from zchunked import Client, Connection, GapOptions, Options, Patience, StallLimits
from zchunked.cli.terminal.progress import Style
from zchunked.cli.words.parser import Parsed
from zchunked.errors import UsageError
from zchunked.events import Event
from zchunked.oci.platform import Platform, platform_of, this_platform
from zchunked.oci.reference import LayoutReference, parse_source

ALL = "all"
"""Instead of a platform, where a verb takes every one of an index."""
_TAKE_ALL = ("convert", "push")
_TAKE_ENGINES = ("convert", "push")


@dataclass(frozen=True, slots=True)
class Output:
    """What is printed, and how. `is_silent`: no summary, and no progress unless named."""

    format: Literal["text", "json"] = "text"
    is_quiet: bool = False
    progress: Style = "auto"
    explain: bool = False
    is_verbose: bool = False
    digestfile: Path | None = None

    @property
    def is_silent(self) -> bool:
        return self.is_quiet and not self.explain and not self.is_verbose

    @property
    def is_talkative(self) -> bool:
        """Whether a summary for people follows on standard error."""
        return not self.is_silent and self.progress not in ("none", "json")


@dataclass(frozen=True, slots=True)
class Settings:
    """`platform`, `store`: None unless chosen. `environment` gives credentials and proxies.

    `own`: options of this verb alone, by name.
    """

    verb: str
    image: str
    digest: str | None
    target: str
    to: tuple[str, ...]
    force: bool
    load: bool
    media_type: str | None
    is_plan: bool
    platform: Platform | None
    store: Path | None
    options: Options
    connection: Connection
    output: Output
    environment: Mapping[str, str]
    own: Mapping[str, Any]


def client_of(settings: Settings, on_event: Callable[[Event], None]) -> Client:
    """The caller closes it."""
    return Client(
        settings.store, options=settings.options, connection=settings.connection, on_event=on_event
    )


def settings(parsed: Parsed, environment: Mapping[str, str]) -> Settings:
    """Raises UsageError; asks for a password where only a user was given."""
    values = dict(parsed.values)
    if parsed.verb in _TAKE_ENGINES:
        values["image"] = _source(values["image"])
    get = values.get
    platform = None if get("platform") == ALL else platform_of(get("platform") or None)
    if get("platform") == ALL and parsed.verb not in _TAKE_ALL:
        raise UsageError(f"invalid --platform: {parsed.verb} takes one platform, not {ALL}")
    if get("exact") and get("lean"):
        raise UsageError(
            "--exact and --lean exclude each other: whole layers are not the fewest bytes"
        )
    if (get("min_rate") or 0) > (get("limit_rate") or get("min_rate") or 0):
        raise UsageError("--min-rate is above --limit-rate: every pull would be given up")
    options = Options(
        platform=platform or this_platform(),
        jobs=get("jobs", 8),
        patience=Patience(get("patience", 60.0), get("retry")),
        stall_limits=StallLimits(get("deadline"), get("min_rate")),
        gaps=GapOptions(
            exact=get("exact", False), lean=get("lean", False), max_gap=_max_gap(parsed)
        ),
        max_bytes=get("max_bytes"),
        rate=get("rate"),
        limit_rate=get("limit_rate"),
        seeds=tuple(Path(text.removeprefix("oci:")) for text in get("seed", ())),
        offline=get("offline", False),
        prove=get("prove", False),
    )
    return Settings(
        verb=parsed.verb,
        image=image if isinstance(image := get("image"), str) else "",
        digest=get("digest"),
        target=get("target", ""),
        to=tuple(get("to", ())),
        force=get("force", False),
        load=get("load", False),
        media_type=get("media_type"),
        is_plan=parsed.verb == "plan" or get("dry_run", False),
        platform=platform,
        store=_path(get("store")),
        options=options,
        connection=Connection(
            authfile=_path(get("authfile")),
            credentials=_credentials(get("creds")),
            tls_verify=get("tls_verify", True),
            plain_http=get("plain_http", False),
            cert_dir=_path(get("cert_dir")),
            registries_conf=_path(get("registries_conf")),
            stall_timeout=get("stall_timeout"),
            environment=environment,
        ),
        output=_output(parsed),
        environment=environment,
        own=MappingProxyType(values),
    )


def _source(text: str) -> str:
    """An image of an engine as every verb reads it; anything else as it was typed."""
    reference = parse_source(text)
    return (
        str(reference) if isinstance(reference, LayoutReference) and reference.is_engine else text
    )


def _output(parsed: Parsed) -> Output:
    get = parsed.values.get
    is_quiet, explain = get("quiet", False), get("explain_retries", False)
    is_verbose = get("verbose", False)
    progress = get("progress", "none")
    if is_quiet and not (explain or is_verbose or "progress" in parsed.given):
        progress = "none"
    return Output(
        format=get("format", "text"),
        is_quiet=is_quiet,
        progress=progress,
        explain=explain or is_verbose,
        is_verbose=is_verbose,
        digestfile=_path(get("digestfile")),
    )


def _max_gap(parsed: Parsed) -> int | None:
    if "max_gap" in parsed.given:
        return int(parsed.values["max_gap"])
    return 0 if parsed.values.get("lean") else None


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _credentials(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    if text == "-":
        text = sys.stdin.readline().rstrip("\r\n")
    user, colon, password = text.partition(":")
    if not colon:
        password = getpass.getpass(f"Password of {user}: ") if sys.stdin.isatty() else ""
    return user, password
