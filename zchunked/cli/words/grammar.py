"""Declare an option, an argument and a verb. `tables` lists them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from zchunked.cli.words import values

Kind = Literal["value", "switch", "list"]


@dataclass(frozen=True, slots=True)
class Option:
    """An option. `parse` raises ValueError with what it expected. `default`: if not typed or set.

    A `list` may be typed several times. Where `separator` is given, its variable holds several, and
    what is typed comes behind those.
    """

    flag: str
    help: str
    parse: Callable[[str], object] = str
    metavar: str = ""
    short: str = ""
    kind: Kind = "value"
    default: object = None
    choices: tuple[str, ...] = ()
    is_path: bool = False
    separator: str = ""

    @property
    def name(self) -> str:
        """What it is called in the code."""
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def variable(self) -> str:
        return f"ZPULL_{self.name.upper()}"


@dataclass(frozen=True, slots=True)
class Argument:
    """`dest`: its name in the code, if not its own in lower case. `is_repeated`: a list."""

    name: str
    help: str
    is_optional: bool = False
    dest: str = ""
    is_repeated: bool = False

    @property
    def shown(self) -> str:
        """The argument as a usage line shows it."""
        name = f"{self.name}…" if self.is_repeated else self.name
        return f"[{name}]" if self.is_optional else name

    @property
    def count(self) -> str | None:
        """How many words it takes, in argparse's terms."""
        if self.is_repeated:
            return "*" if self.is_optional else "+"
        return "?" if self.is_optional else None

    @property
    def key(self) -> str:
        return self.dest or self.name.lower()


@dataclass(frozen=True, slots=True)
class Verb:
    """`groups`: titles and options; the first group's title is empty."""

    name: str
    summary: str
    arguments: tuple[Argument, ...]
    groups: tuple[tuple[str, tuple[Option, ...]], ...]
    examples: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[Option, ...]:
        return tuple(option for _, options in self.groups for option in options)


def path(flag: str, help: str, metavar: str = "FILE") -> Option:  # noqa: A002
    return Option(flag, help, metavar=metavar, is_path=True)


def switch(flag: str, help: str, short: str = "") -> Option:  # noqa: A002
    return Option(flag, help, values.boolean, short=short, kind="switch", default=False)


def choice(flag: str, help: str, *words: str) -> Option:  # noqa: A002
    """The first word is the default."""
    return Option(
        flag, help, values.one_of(*words), "|".join(words), default=words[0], choices=words
    )
