"""The manual page (man(7)), generated from the tables."""

from __future__ import annotations

from collections.abc import Iterator

from zchunked.cli.manuals.help import EXIT_CODES, VARIABLES
from zchunked.cli.words.grammar import Option, Verb
from zchunked.cli.words.tables import VERBS


def manual() -> str:
    """The manual page in the man(7) language."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield '.TH ZPULL 1 "" "zpull" "User Commands"'
    yield from (".SH NAME", "zpull \\- pull container images, downloading every needed byte once")
    yield ".SH SYNOPSIS"
    yield from (
        ".B zpull",
        "[\\fBpull\\fR] \\fIIMAGE\\fR [\\fB\\-\\-to\\fR \\fIDEST\\fR] [options]",
        ".br",
    )
    yield from (".B zpull", "\\fIVERB\\fR [options]")
    yield ".SH DESCRIPTION"
    yield _text(
        "Downloads every needed byte of a container image once, and proves every byte that is kept."
    )
    yield ".SH VERBS"
    shown: set[tuple[str, str]] = set()
    for verb in VERBS.values():
        words = " ".join(f"[{one.name}]" if one.is_optional else one.name for one in verb.arguments)
        yield f".SS {_text(f'zpull {verb.name} {words}'.strip())}"
        yield _text(verb.summary[0].upper() + verb.summary[1:] + ".")
        yield from _arguments(verb)
        shared = [option for option in verb.options if (option.flag, option.help) in shown]
        for option in verb.options:
            if (option.flag, option.help) not in shown:
                shown.add((option.flag, option.help))
                yield from _option(option)
        if shared:
            yield ".PP"
            flags = ", ".join(f"\\fB{_text(option.flag)}\\fR" for option in shared)
            yield f"Also, as above: {flags}."
        if verb.examples:
            yield from (
                ".PP",
                "Examples:",
                ".PP",
                ".nf",
                *(f"    {_text(one)}" for one in verb.examples),
                ".fi",
            )
    yield from (".SH VALUES", _text("TIME is 90, 90s, 10m or 1h. BYTES is 4096, 64k or 1.5MB."))
    yield _text("RATE is 500kB or 4Mbit, a second.")
    yield from (".SH ENVIRONMENT", *(_text(line) for line in VARIABLES.split("\n")))
    yield ".SH EXIT STATUS"
    for code, meaning in EXIT_CODES:
        yield from (".TP", f".B {code}", _text(meaning))


def _arguments(verb: Verb) -> Iterator[str]:
    for argument in verb.arguments:
        yield from (".TP", f".I {argument.name}", _text(argument.help))


def _option(option: Option) -> Iterator[str]:
    names = ", ".join(f"\\fB{_text(name)}\\fR" for name in (option.short, option.flag) if name)
    value = "" if option.kind == "switch" else f" \\fI{_text(option.metavar)}\\fR"
    yield from (".TP", names + value, _text(option.help))


def _text(text: str) -> str:
    """Hyphens stay hyphens, backslashes stay backslashes, and no line is a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return f"\\&{text}" if text.startswith((".", "'")) else text
