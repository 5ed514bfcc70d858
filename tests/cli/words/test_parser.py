"""Words and variables.

Each value passes the same parser, and whoever mistypes one is told what was expected.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from zchunked.cli.dispatch import COMMANDS
from zchunked.cli.words.parser import parse
from zchunked.cli.words.tables import VERBS
from zchunked.cli.words.verbs import _ELSEWHERE
from zchunked.errors import UsageError

IMAGE = "host.example/name"


def value(name: str, *argv: str, **environment: str) -> Any:
    return parse([IMAGE, *argv], environment).values[name]


@pytest.mark.parametrize("word", ["1", "true", "True", "TRUE", "yes", "Yes", "YES"])
def test_what_means_true_leaves_certificate_checks_on(word: str) -> None:
    assert value("tls_verify", ZPULL_TLS_VERIFY=word) is True
    assert value("tls_verify", f"--tls-verify={word}", ZPULL_TLS_VERIFY="false") is True
    assert value("plain_http", f"--plain-http={word}") is True
    assert value("exact", ZPULL_EXACT=word) is True


@pytest.mark.parametrize("word", ["0", "false", "False", "no", "NO"])
def test_certificate_checks_are_off_where_false_was_said(word: str) -> None:
    assert value("tls_verify", ZPULL_TLS_VERIFY=word) is False
    assert value("tls_verify", f"--tls-verify={word}", ZPULL_TLS_VERIFY="true") is False
    assert value("plain_http", f"--plain-http={word}", ZPULL_PLAIN_HTTP="1") is False


@pytest.mark.parametrize("word", ["on", "off", "2", "t", "f", "truee", " ", "none", "disable"])
@pytest.mark.parametrize(
    "flag", ["--tls-verify", "--plain-http", "--offline", "--quiet", "--exact", "--verbose"]
)
def test_any_other_word_for_a_switch_is_an_error(flag: str, word: str) -> None:
    variable = "ZPULL_" + flag[2:].upper().replace("-", "_")
    with pytest.raises(UsageError, match=f"invalid {variable}: expected true or false"):
        parse([IMAGE], {variable: word})
    with pytest.raises(UsageError, match=f"invalid {flag}: expected true or false"):
        parse([IMAGE, f"{flag}={word}"], {})
    with pytest.raises(UsageError):
        parse([IMAGE, f"{flag}="], {})


def test_images_may_stand_between_options() -> None:
    parsed = parse(["a/b", "--format", "json", "c/d", "-q", "--to=oci:x", "e/f", "-j", "3"], {})
    assert parsed.values["image"] == ["a/b", "c/d", "e/f"]
    assert (parsed.values["format"], parsed.values["quiet"], parsed.values["jobs"]) == (
        "json",
        True,
        3,
    )
    with pytest.raises(UsageError, match="expected one argument"):
        parse(["a/b", "c/d", "--to"], {})


def test_an_empty_variable_counts_as_none() -> None:
    assert value("tls_verify", ZPULL_TLS_VERIFY="") is True
    assert value("jobs", ZPULL_JOBS="") == 8


@pytest.mark.parametrize(
    ("flag", "wrong"),
    [
        ("--format", "JSON"),
        ("--progress", "fancy"),
        ("--jobs", "0"),
        ("--jobs", "65"),
        ("--jobs", "eight"),
        ("--patience", "-1"),
        ("--patience", "nan"),
        ("--patience", "inf"),
        ("--patience", "1 fortnight"),
        ("--deadline", "1h 2"),
        ("--retry", "-1"),
        ("--min-rate", "0"),
        ("--limit-rate", "fast"),
        ("--rate", "nan"),
        ("--max-bytes", "4Mbit"),
        ("--max-gap", "-1"),
        ("--stall-timeout", "x"),
    ],
)
def test_a_variable_passes_the_parser_of_its_option(flag: str, wrong: str) -> None:
    variable = "ZPULL_" + flag[2:].upper().replace("-", "_")
    with pytest.raises(UsageError, match=f"invalid {variable}: expected .*, got '{wrong}'"):
        parse([IMAGE], {variable: wrong})
    with pytest.raises(UsageError, match=f"invalid {flag}: expected .*, got '{wrong}'"):
        parse([IMAGE, f"{flag}={wrong}"], {})


def test_a_variable_of_an_option_that_the_verb_has_not_is_not_looked_at() -> None:
    assert parse(["images"], {"ZPULL_JOBS": "eight"}).verb == "images"


@pytest.mark.parametrize(
    ("flag", "text", "want"),
    [
        ("--patience", "90", 90),
        ("--patience", "90s", 90),
        ("--patience", "10m", 600),
        ("--deadline", "1h", 3600),
        ("--deadline", "1h30m", 5400),
        ("--stall-timeout", "0.5", 0.5),
        ("--limit-rate", "500kB", 500_000),
        ("--limit-rate", "500kB/s", 500_000),
        ("--min-rate", "500k", 500_000),
        ("--min-rate", "4Mbit", 500_000),
        ("--rate", "4Mbit/s", 500_000),
        ("--rate", "4Mbps", 500_000),
        ("--rate", "1MiB/s", 1 << 20),
        ("--max-bytes", "1.5MB", 1_500_000),
        ("--max-bytes", "64KiB", 65536),
        ("--max-gap", "0", 0),
    ],
)
def test_values_as_people_write_them(flag: str, text: str, want: float) -> None:
    name = flag[2:].replace("-", "_")
    assert value(name, flag, text) == want
    assert value(name, **{f"ZPULL_{name.upper()}": text}) == want


def test_what_is_typed_wins_and_seeds_add_up() -> None:
    assert value("jobs", "-j", "2", ZPULL_JOBS="4") == 2
    assert value("seed", "--seed", "c", ZPULL_SEED="a:b") == ["a", "b", "c"]
    assert value("to", "--to", "oci:b", ZPULL_TO="oci:a") == ["oci:b"]


def test_a_switch_swallows_no_word_behind_it() -> None:
    assert parse(["--tls-verify", IMAGE], {}).values["image"] == [IMAGE]
    assert parse(["--quiet", "images"], {}).verb == "images"
    assert parse(["--tls-verify", "false", IMAGE], {}).values["tls_verify"] is False


@pytest.mark.parametrize(
    "argv", [["-v", "plan", IMAGE], ["--jobs", "2", "plan", IMAGE], ["--jobs=2", "plan", IMAGE]]
)
def test_options_may_stand_before_the_verb(argv: list[str]) -> None:
    assert (parse(argv, {}).verb, parse(argv, {}).values["image"]) == ("plan", [IMAGE])


@pytest.mark.parametrize(
    ("word", "instead"),
    [
        ("ls", "zpull images"),
        ("list", "zpull images"),
        ("image", "zpull images"),
        ("Images", "zpull images"),
        ("prune", "zpull gc"),
        ("help", "zpull --help"),
        ("version", "zpull --version"),
        ("login", "podman login"),
        ("plna", "zpull plan"),
        ("pul", "zpull pull"),
        ("pulll", "zpull pull"),
        ("exprot", "zpull export"),
        ("publsh", "zpull publish"),
        ("verfy", "zpull verify"),
        ("locat", "zpull locate"),
    ],
)
def test_a_word_that_resembles_a_verb_is_no_image(word: str, instead: str) -> None:
    for argv in ([word], [word, "host/x:y"], ["-q", word]):
        with pytest.raises(UsageError, match=f"did you mean {instead}"):
            parse(argv, {})


@pytest.mark.parametrize(
    "word",
    "alpine bash caddy dart debian fedora gcc ghost golang hitch httpd mysql nginx node perl "
    "php plone postgres python redis registry ros ruby rust sl solr storm swift unit vault znc "
    "ls:latest "
    "docker.io/library/ls".split(),
)
def test_other_bare_words_are_images_of_docker_hub(word: str) -> None:
    parsed = parse([word], {})
    assert (parsed.verb, parsed.values["image"]) == ("pull", [word])


def test_every_option_says_what_happens_and_has_a_parser_for_its_default() -> None:
    for verb in VERBS.values():
        names = [option.flag for option in verb.options]
        assert len(names) == len(set(names)), verb.name
        for option in verb.options:
            assert option.help
            assert not option.help[0].isupper() or option.help.startswith("CA ")
            assert not option.help.endswith(".")
            if isinstance(option.default, str):
                assert option.parse(option.default) == option.default


@pytest.mark.parametrize(
    "argv",
    [
        ["https://me:s3cr3t@host.example/name"],
        ["me:s3cr3t@host.example/name"],
        ["docker://me:s3/cr3t@host.example/name:t"],
        [IMAGE, "https://me:s3cr3t@host.example/other"],
        [IMAGE, "--platform", "https://me:s3cr3t@host"],
        [IMAGE, "--bogus=https://me:s3cr3t@host"],
        [IMAGE, "--to", "https://me:s3cr3t@host/x"],
        ["publish", IMAGE, "https://me:s3cr3t@host/x"],
        [IMAGE, "--max-bytes", "me:s3cr3t@host"],
        ["oci+https://me:s3cr3t@host.example/base:t"],
        ["fetch", IMAGE, "me:s3cr3t@host"],
    ],
)
def test_a_password_that_was_typed_in_the_wrong_place_is_not_repeated(
    argv: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from zchunked.cli import run  # noqa: PLC0415

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ZPULL_STORE", str(tmp_path / "store"))
    assert run(argv) == 2
    said = capsys.readouterr()
    assert "cr3t" not in said.err + said.out
    assert said.err.count("\n") == 1


def test_no_hint_hides_a_verb() -> None:
    assert not set(_ELSEWHERE) & set(VERBS)


def test_every_verb_has_its_command() -> None:
    assert set(COMMANDS) == set(VERBS)
    for place in COMMANDS.values():
        module, _, name = place.partition(".")
        assert callable(getattr(import_module(f"zchunked.cli.commands.{module}"), name))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["serve", "--listn", "1"], "--listn 1; did you mean --listen?; zpull serve --help"),
        (["images", "extra"], "extra; zpull images --help"),
        (["a/b", "--max-gapp=0"], "--max-gapp=0; did you mean --max-gap?; zpull --help"),
        (["a/b", "-x"], "-x; zpull --help"),
    ],
)
def test_what_no_verb_knows_is_answered_with_the_help_of_that_verb(
    argv: list[str], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse(argv, {})
    assert str(caught.value) == f"unrecognized arguments: {said} lists what is possible"
