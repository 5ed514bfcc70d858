"""What a command loads: a start takes longer than most of what is asked for."""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest

from tests.helpers.build.front import gzip_layer, image, make_tar
from tests.helpers.harness.command import environment
from tests.helpers.servers.registry import Registry
from zchunked.cli.words import parser
from zchunked.cli.words.grammar import Verb
from zchunked.cli.words.parser import parse

_IMAGE = image([gzip_layer(make_tar({"app": b"one" * 1000}))])
_CODE = "import sys; from zchunked.cli import run; run(sys.argv[1:]); print(*sys.modules)"


def loaded(home: Path, *words: str) -> AbstractSet[str]:
    """Modules that the command has loaded when it ends."""
    argv = [sys.executable, "-c", _CODE, *words]
    env = environment(home)
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True, cwd=home)
    return set(done.stdout.splitlines()[-1].split())


def test_the_version_is_quick_to_say(tmp_path: Path) -> None:
    found = loaded(tmp_path, "--version")
    assert not found & {"requests", "zstandard", "tqdm", "sqlite3", "msgspec"}


def test_a_pull_with_nothing_to_do_loads_neither_what_fetches_layers_nor_exports(
    tmp_path: Path,
) -> None:
    with Registry({"v1": _IMAGE}) as registry:
        first = loaded(tmp_path, registry.reference("v1"), "--store", "store")
        again = loaded(tmp_path, registry.reference("v1"), "--store", "store")
    needed_for_layers = {"zchunked.pull.layers", "zchunked.layers.assemble", "zstandard", "fastcrc"}
    assert needed_for_layers <= first
    assert not needed_for_layers & again
    assert not [name for name in again if name.startswith(("zchunked.export", "zchunked.layers"))]
    assert not again & {"subprocess", "tenacity", "tqdm", "zchunked.sources.mirrors"}


def test_the_grammar_of_one_verb_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    add = parser._add

    def noted(to: ArgumentParser, verb: Verb) -> None:
        made.append(verb.name)
        add(to, verb)

    monkeypatch.setattr(parser, "_add", noted)
    assert parse(["plan", "registry.example/app"], {}).values["image"] == ["registry.example/app"]
    assert made == ["plan"]
