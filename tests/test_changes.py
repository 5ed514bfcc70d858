"""Fragments of the changelog: one of another kind would be left out of a release, and stop it."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_each_fragment_is_of_a_kind_that_the_changelog_has() -> None:
    settings = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text(encoding="utf-8"))
    towncrier = settings["tool"]["towncrier"]
    kinds = {f".{one['directory']}.md" for one in towncrier["type"]}
    for one in ROOT.joinpath("changes").iterdir():
        known = one.name in towncrier["ignore"] or "".join(one.suffixes) in kinds
        assert known, f"{one.name}: expected one of SUBJECT{', SUBJECT'.join(sorted(kinds))}"
