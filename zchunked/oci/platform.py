"""Platforms: normalise their spelling, and choose the image of an index."""

from __future__ import annotations

import platform as machine

from msgspec import Struct

from zchunked.errors import UsageError
from zchunked.oci.quoting import printable, typed

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "i386": "386",
}


class Platform(Struct, frozen=True):
    """`os/architecture[/variant]`; the variant is empty where the architecture has only one."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return printable("/".join(filter(None, (self.os, self.architecture, self.variant))))


def normalised(os: str, architecture: str, variant: str = "") -> Platform:
    """Normalise spellings: aarch64 is arm64; arm64's v8 and amd64's v1 are left out."""
    os, architecture, variant = os.lower(), architecture.lower(), variant.lower()
    architecture = {
        "x86_64": "amd64",
        "x86-64": "amd64",
        "aarch64": "arm64",
        "i386": "386",
        "armhf": "arm",
    }.get(architecture, architecture)
    if (architecture, variant) in {("arm64", "v8"), ("arm64", "8"), ("amd64", "v1")}:
        variant = ""
    if architecture == "arm":
        variant = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
    return Platform(os, architecture, variant)


def parse_platform(text: str) -> Platform | None:
    """`os/architecture[/variant]`; None when it is not of that form."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        return None
    return normalised(*parts)


def platform_of(platform: str | Platform | None) -> Platform | None:
    """A platform as a caller gives it. Raises UsageError."""
    if not isinstance(platform, str):
        return platform
    if (parsed := parse_platform(platform)) is None:
        raise UsageError(
            "invalid platform: expected os/architecture[/variant], such as linux/arm64, got "
            f"{typed(platform, 80)}"
        )
    return parsed


def this_platform() -> Platform:
    name = machine.machine().lower()
    variant = {"armv7l": "v7", "armv6l": "v6"}.get(name, "")
    return normalised("linux", _ARCHITECTURES.get(name, name), variant)


def accepted(want: Platform) -> list[Platform]:
    """What runs on `want`, best first: an arm machine runs the older variants too."""
    variants = [want.variant]
    if (
        want.architecture in ("arm", "amd64")
        and want.variant[:1] == "v"
        and want.variant[1:].isdecimal()
    ):
        newest = min(int(want.variant[1:]), 9)
        oldest = 5 if want.architecture == "arm" else 2
        variants += [f"v{number}" for number in range(newest - 1, oldest - 1, -1)]
    if "" not in variants and want.architecture != "arm":
        variants.append("")
    return [Platform(want.os, want.architecture, variant) for variant in variants]


def runs_on(image: Platform, want: Platform) -> bool:
    """Whether it is the wanted platform, or an older variant. An unstated one runs anywhere."""
    return not image.architecture or image in accepted(want)
