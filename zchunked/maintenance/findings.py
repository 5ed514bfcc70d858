"""Findings of a verification: damaged bytes, and layers whose tar is not the image's. Values."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that did not match a digest, now dropped. `chunk` where one of its chunks was wrong."""

    blob: str
    start: int
    end: int
    chunk: str | None = None


@dataclass(frozen=True, slots=True)
class Lie:
    """A layer whose blob is right, but whose tar is not the one that the image's config names."""

    layer: str
    diff_id: str
    says: str


@dataclass(slots=True)
class Findings:
    """`bytes` were looked at; `unclaimed` are files that nothing pointed to, and are gone.

    `is_read_only`: the store is, so what is damaged stays in it.
    """

    blobs: int = 0
    chunks: int = 0
    bytes: int = 0
    unclaimed: int = 0
    damaged: list[Damage] = field(default_factory=list)
    is_read_only: bool = False
    lies: list[Lie] = field(default_factory=list)
