"""Parse words: the verb, and each option as typed, else as its variable says, else its default."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from zchunked import __version__
from zchunked.cli.manuals.help import first_screen, verb_epilog
from zchunked.cli.words.grammar import Option, Verb
from zchunked.cli.words.tables import VERBS
from zchunked.cli.words.verbs import nearest, refuse_lookalike
from zchunked.errors import UsageError
from zchunked.oci.quoting import typed as quoted
from zchunked.oci.quoting import without_passwords

SHELLS = ("bash", "zsh", "fish", "tcsh")
_OFF = "--not-"  # what `--plain-http=false` becomes on its way through argparse
_LONGEST = 40  # letters of an option that are compared
_TOP = ("-h", "--help", "--version", "--print-manual")


@dataclass(frozen=True, slots=True)
class Parsed:
    """`values` by the options' names, and arguments' in lower case; `given`: typed or set."""

    verb: str
    values: Mapping[str, Any]
    given: frozenset[str]


def parse(argv: Sequence[str], environment: Mapping[str, str]) -> Parsed:
    """Raises UsageError; SystemExit once a help or the version has been printed."""
    words = _options_first(_with_verb(_spelled_out(argv)))
    # Where a verb is meant, its grammar alone: that of all fifteen takes argparse 10 ms.
    meant = [VERBS[words[0]]] if words[0] in VERBS else VERBS.values()
    known, unknown = parser(meant).parse_known_args(words)
    typed = vars(known)
    if unknown:
        _refuse_unknown(unknown, typed.get("verb"))
    if typed.get("print_manual"):
        return Parsed("print-manual", {}, frozenset())
    if typed.get("print_completion"):
        return Parsed("print-completion", {"shell": typed["print_completion"]}, frozenset())
    verb = VERBS[typed["verb"]]
    found: dict[str, Any] = {argument.key: typed[argument.key] for argument in verb.arguments}
    given = set()
    for option in verb.options:
        value, is_given = _value(option, typed[option.name], environment.get(option.variable, ""))
        found[option.name] = value
        if is_given:
            given.add(option.name)
    return Parsed(verb.name, found, frozenset(given))


def _refuse_unknown(words: list[str], verb: str | None) -> NoReturn:
    flag, hint = words[0].partition("=")[0], ""
    # Not of "-x": every short name is near every other
    if verb and flag.startswith("--"):
        near = nearest(flag[:_LONGEST], [option.flag for option in VERBS[verb].options])
        hint = f"; did you mean {near}?" if near else ""
    prog = f"zpull {verb}" if verb and verb != "pull" else "zpull"
    unknown = without_passwords(" ".join(words))
    raise UsageError(
        f"unrecognized arguments: {unknown}{hint}; {prog} --help lists what is possible"
    )


def _value(option: Option, typed: Any, variable: str) -> tuple[Any, bool]:
    """An empty variable counts as none."""
    if option.kind == "list":
        return _list(option, typed or [], variable), bool(typed or variable)
    if isinstance(typed, bool):
        return typed, True
    if typed is not None:
        return _parsed(option, option.flag, typed), True
    if variable:
        return _parsed(option, option.variable, variable), True
    return option.default, False


def _list(option: Option, typed: list[str], variable: str) -> list[Any]:
    known: list[str] = []
    if variable and option.separator:
        known = [one for one in variable.split(option.separator) if one]
    elif variable and not typed:
        known = [variable]
    return [_parsed(option, option.flag, text) for text in (*known, *typed)]


def _parsed(option: Option, where: str, text: str) -> object:
    try:
        return option.parse(text)
    except ValueError as error:
        raise UsageError(f"invalid {where}: expected {error}, got {quoted(text, 80)}") from None


# ── words ──


def _spelled_out(argv: Sequence[str]) -> list[str]:
    """`--switch=VALUE` as a word of its own, so that a switch never swallows the word behind it."""
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*words, word, *rest]
        flag, equals, text = word.partition("=")
        if flag not in _SWITCHES:
            words.append(word)
            continue
        if flag == "--tls-verify" and not equals and rest and rest[0].lower() in ("true", "false"):
            text = rest.pop(0)
        is_on = _parsed(_SWITCHES[flag], flag, text) if text or equals else True
        words.append(flag if is_on else _OFF + flag.removeprefix("--"))
    return words


def _with_verb(words: list[str]) -> list[str]:
    """The verb first, also where options were typed before it. Without one, `pull` is meant."""
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-", "--"):
        if words[at] in _TOP or words[at].startswith("--print-completion"):
            return words[at:]
        at += 2 if words[at] in _VALUED else 1
    if at < len(words) and words[at] in VERBS:
        return [words[at], *words[:at], *words[at + 1 :]]
    if at < len(words) and words[at] != "--":
        refuse_lookalike(words[at], VERBS)
    return ["pull", *words]


def _options_first(words: list[str]) -> list[str]:
    """Verb, options, arguments: argparse takes lists of arguments only in one stretch."""
    if words[0] not in VERBS or "--" in words:
        return words
    options, others, rest = words[:1], [], words[1:]
    while rest:
        word = rest.pop(0)
        if word == "-" or not word.startswith("-"):
            others.append(word)
            continue
        options.append(word)
        if word in _VALUED:
            if not rest:  # argparse says so
                return words
            options.append(rest.pop(0))
    return [*options, *others]


_ALL = [option for verb in VERBS.values() for option in verb.options]
_SWITCHES = {option.flag: option for option in _ALL if option.kind == "switch"}
_VALUED = {
    name
    for option in _ALL
    if option.kind != "switch"
    for name in (option.flag, option.short)
    if name
}


# ── argparse ──


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{without_passwords(message)}; {self.prog} --help lists what is possible")


class _Top(_Parser):
    def format_help(self) -> str:
        return first_screen()


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=100)


def parser(verbs: Iterable[Verb] = VERBS.values()) -> argparse.ArgumentParser:
    """The grammar for argparse, and for readers of a parser: completions, manual page."""
    top = _Top(prog="zpull", usage="zpull [pull] IMAGE [--to DEST] [options]", allow_abbrev=False)
    top.add_argument(
        "--version", action="version", version=f"zpull {__version__}", help="print the version"
    )
    top.add_argument(
        "--print-completion",
        choices=SHELLS,
        help="print a script that completes words in that shell",
    )
    top.add_argument("--print-manual", action="store_true", help="print the manual page, for man")
    known = top.add_subparsers(prog="zpull", dest="verb", metavar="VERB", parser_class=_Parser)
    for verb in verbs:
        _add(known.add_parser(
            verb.name,
            help=verb.summary,
            description=verb.summary[0].upper() + verb.summary[1:] + ".",
            epilog=verb_epilog(verb),
            formatter_class=_Formatter,
            usage=_usage(verb),
            allow_abbrev=False,
        ), verb)  # fmt: skip
    return top


def _usage(verb: Verb) -> str:
    words = [one.shown for one in verb.arguments]
    if verb.name == "export":
        words.append("--to DEST")
    return " ".join(["zpull", verb.name, *words, "[options]"])


def _add(to: argparse.ArgumentParser, verb: Verb) -> None:
    for argument in verb.arguments:
        to.add_argument(
            argument.key, metavar=argument.name, help=argument.help, nargs=argument.count
        )
    add_options(to, verb)


def add_options(to: argparse.ArgumentParser, verb: Verb) -> None:
    for title, options in verb.groups:
        group = to.add_argument_group(title) if title else to
        for option in options:
            names = [name for name in (option.short, option.flag) if name]
            help_text = option.help.replace("%", "%%")
            if option.kind == "switch":
                group.add_argument(
                    *names, dest=option.name, action="store_const", const=True, help=help_text
                )
                off = _OFF + option.flag.removeprefix("--")
                to.add_argument(
                    off, dest=option.name, action="store_const", const=False, help=argparse.SUPPRESS
                )
            else:
                action = "append" if option.kind == "list" else "store"
                group.add_argument(
                    *names, dest=option.name, action=action, metavar=option.metavar, help=help_text
                )
