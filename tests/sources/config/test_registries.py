"""registries.conf: which table counts, who is asked in what order.

A broken file is an error that says where.
"""

from __future__ import annotations

import string
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zchunked.errors import AccessDeniedError, LocalError, UsageError, ZPullError
from zchunked.oci.reference import parse_reference
from zchunked.sources.config.registries import Registries, endpoints, find, parse_registries
from zchunked.sources.config.registries_files import registries_from

TABLE = '[[registry]]\nlocation = "a.b"'
DIGEST = "sha256:" + "0" * 64


def conf(text: str) -> Registries:
    return parse_registries(text.encode(), "the.conf")


def asked(text: str, image: str) -> list[str]:
    return [str(end.reference) for end in endpoints(conf(text), parse_reference(image))]


EXAMPLE = """
unqualified-search-registries = ["example.com"]

[[registry]]
prefix = "example.com/foo"
location = "internal.example.net/bar"

[[registry.mirror]]
location = "mirror-0.local/mirror-for-foo"

[[registry.mirror]]
location = "mirror-1.local:5000/mirrors/foo/"
insecure = true

[[registry]]
location = "registry.com"
[[registry.mirror]]
location = "mirror.registry.com"

[[registry]]
prefix = "*.wild.example"
[[registry.mirror]]
location = "mirror.local/wild"
"""


@pytest.mark.parametrize(
    ("image", "places"),
    [
        (
            "example.com/foo/image:1",
            [
                "mirror-0.local/mirror-for-foo/image:1",
                "mirror-1.local:5000/mirrors/foo/image:1",
                "internal.example.net/bar/image:1",
            ],
        ),
        ("Example.com/foo:1",
         ["mirror-0.local/mirror-for-foo:1", "mirror-1.local:5000/mirrors/foo:1",
          "internal.example.net/bar:1"]),
        ("example.com/foobar:1", ["example.com/foobar:1"]),
        ("registry.com/a/b:t", ["mirror.registry.com/a/b:t", "registry.com/a/b:t"]),
        (f"registry.com/a@{DIGEST}",
         [f"mirror.registry.com/a@{DIGEST}", f"registry.com/a@{DIGEST}"]),
        ("registry.com:5000/a:t", ["registry.com:5000/a:t"]),
        ("a.wild.example/x/y:t", ["mirror.local/wild/x/y:t", "a.wild.example/x/y:t"]),
        ("a.b.wild.example:5000/x:t", ["mirror.local/wild/x:t", "a.b.wild.example:5000/x:t"]),
        ("wild.example/x:t", ["wild.example/x:t"]),
        ("notwild.example/x:t", ["notwild.example/x:t"]),
        ("evil.example/a.wild.example/x:t", ["evil.example/a.wild.example/x:t"]),
    ],
)  # fmt: skip
def test_mirrors_come_in_their_order_and_the_primary_last(image: str, places: list[str]) -> None:
    assert asked(EXAMPLE, image) == places


def test_an_insecure_place_is_so_alone() -> None:
    ends = endpoints(conf(EXAMPLE), parse_reference("example.com/foo/image"))
    assert [end.is_insecure for end in ends] == [False, True, False]
    assert [end.is_mirror for end in ends] == [True, True, False]


def test_docker_hub_has_its_library() -> None:
    text = '[[registry]]\nlocation = "docker.io/library"\nmirror = [{location = "m.local/hub"}]'
    assert asked(text, "alpine:3") == ["m.local/hub/alpine:3", "docker.io/library/alpine:3"]
    assert asked(text, "me/alpine:3") == ["docker.io/me/alpine:3"]


@pytest.mark.parametrize("image", ["r.example/team/app:t", f"r.example/team/app:t@{DIGEST}"])
def test_the_longest_prefix_counts_and_a_host_before_a_wildcard(image: str) -> None:
    prefixes = [
        "r.example",
        "r.example/team",
        "r.example/team/app",
        "r.example/te",
        "r.example/team/app/x",
        "*.example",
    ]
    registries = conf(
        "".join([f'[[registry]]\nprefix="{one}"\nlocation="x.local"\n' for one in prefixes])
    )
    found = find(registries, parse_reference(image))
    assert found is not None
    assert found.prefix == "r.example/team/app"
    both = conf('[[registry]]\nprefix="*.example"\n[[registry]]\nlocation="r.example"')
    found = find(both, parse_reference(image))
    assert found is not None
    assert found.prefix == "r.example"


def test_some_mirrors_are_for_digests_and_some_for_tags() -> None:
    text = """[[registry]]
    location = "r.example"
    mirror = [
      {location = "d.local", pull-from-mirror = "digest-only"},
      {location = "t.local", pull-from-mirror = "tag-only"},
      {location = "a.local", pull-from-mirror = "all"},
      {location = "e.local", pull-from-mirror = ""},
    ]"""
    assert [name[:1] for name in asked(text, "r.example/x:t")] == ["t", "a", "e", "r"]
    assert [name[:1] for name in asked(text, f"r.example/x@{DIGEST}")] == ["d", "a", "e", "r"]
    only = (
        '[[registry]]\nlocation="r.example"\nmirror-by-digest-only=true\n'
        'mirror=[{location="m.local"}]'
    )
    assert asked(only, "r.example/x:t") == ["r.example/x:t"]
    assert len(asked(only, f"r.example/x:t@{DIGEST}")) == 2


def test_what_is_blocked_names_the_file_that_blocks_it() -> None:
    text = '[[registry]]\nprefix="r.example/bad"\nlocation="r.example/bad"\nblocked=true'
    with pytest.raises(AccessDeniedError, match=r"r\.example/bad/x is blocked: the\.conf says so"):
        asked(text, "r.example/bad/x:t")
    assert asked(text, "r.example/badge:t") == ["r.example/badge:t"]
    onward = text + '\n[[registry]]\nprefix="alias.example"\nlocation="r.example/bad"\n'
    with pytest.raises(AccessDeniedError):
        asked(onward, "alias.example/x:t")
    mirrored = text + '\n[[registry]]\nlocation="p.example"\nmirror=[{location="r.example/bad"}]'
    assert asked(mirrored, "p.example/x:t") == ["p.example/x:t"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[registry]\n", "line 1"),
        ('location = "x', "at end of document"),
        ("registry = 3", r"`array`.*\$\.registry"),
        ("[[registry]]\nlocation = 5", r"`str`.*registry\[0\]\.location"),
        ('[[registry]]\nlocation = "a.b"\n[[registry.mirror]]\ninsecure = "yes"',
         r"mirror\[0\]\.insecure"),
        ('[[registry]]\nlocation = "a.b"\n[[registry.mirror]]\n',
         r"\[\[registry\]\] 1, mirror 1: invalid location ''"),
        (f"{TABLE}\n[[registry.mirror]]\nlocation='m'\npull-from-mirror='never'",
         r"mirror\[0\]\.pull-from-mirror"),
        (f"{TABLE}\nmirror-by-digest-only=true\nmirror=[{{location='m',pull-from-mirror='all'}}]",
         "contradicts"),
        ('[[registry]]\nlocation = "https://a.b"', "without a scheme"),
        ("[[registry]]\nblocked = true", "invalid location"),
        ('[[registry]]\nprefix = "a.b"', "has no `location`"),
        ('[[registry]]\nprefix = "a.*.b"\nlocation = "c.d"', "invalid location"),
        ('[[registry]]\nprefix = "*.a.b/c"', "subdomains only"),
        ('[registries.search]\nregistries = ["docker.io"]', "version 1.*man 5"),
        ("x = " + "[" * 50_000, "expected TOML"),
    ],
)  # fmt: skip
def test_a_file_not_understood_is_named_with_the_place(text: str, says: str) -> None:
    with pytest.raises(LocalError, match=says) as caught:
        conf(text)
    assert "the.conf" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(LocalError, match=r"the\.conf: expected UTF-8, got another byte at 2"):
        parse_registries(b"x=\xff", "the.conf")


def test_what_is_not_known_is_passed_over() -> None:
    text = (
        "[registries.search]\nregistries = []\n[aliases]\na = "
        '"b"\n[[registry]]\nlocation="a.b"\nfuture={x=1}'
    )
    assert asked(text, "a.b/c:t") == ["a.b/c:t"]


@pytest.mark.parametrize(
    "location", ["mirror", "mirror/x", "m.local/Upper", "m.local/a//b", "m.local:99999"]
)
def test_a_location_that_makes_no_name_is_said(location: str) -> None:
    with pytest.raises(LocalError, match=r"the\.conf"):
        asked(f'[[registry]]\nlocation="a.b"\nmirror=[{{location="{location}"}}]', "a.b/c:t")


@given(st.binary() | st.text(string.printable).map(str.encode))
@example(b"[[registry]]\nlocation=''")
@example(b"[registries]\nsearch=1")
def test_whatever_a_file_holds_it_is_tables_or_a_local_error(data: bytes) -> None:
    with suppress(LocalError):
        parse_registries(data, "the.conf")


NAMES = st.from_regex(r"[a-z]{1,3}(\.[a-z]{1,3}){0,2}(:5)?(/[a-z]{1,2}){0,3}", fullmatch=True)


@given(st.lists(NAMES, max_size=6), NAMES, NAMES)
def test_any_prefix_and_any_name(prefixes: list[str], location: str, name: str) -> None:
    text = "".join([f'[[registry]]\nprefix="{one}"\nlocation="{location}"\n' for one in prefixes])
    reference = parse_reference(f"r.example/{name.replace(':', '')}")
    with suppress(ZPullError):
        ends = endpoints(conf(text), reference)
        assert not ends[-1].is_mirror
        assert (find(conf(text), reference) is None) == (
            ends[-1].reference == reference
        ) or location == "r.example"


# ── which files ──


def table(name: str) -> str:
    return f'[[registry]]\nprefix = "r.example"\nlocation = "{name}.local"\n'


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_files_are_read_in_the_order_of_the_container_tools(tmp_path: Path) -> None:
    home, system = {"HOME": str(tmp_path / "home")}, tmp_path / "etc"
    own = tmp_path / "home/.config/containers"

    def location(environment: dict[str, str] = home, given: Path | None = None) -> str:
        found = registries_from(environment, given=given, system=system).get("r.example")
        return found.primary.location.removesuffix(".local") if found else ""

    assert not location()
    put(system / "registries.conf", table("etc"))
    assert location() == location({}) == "etc"
    put(system / "registries.conf.d/10-a.conf", table("etc-a"))
    put(system / "registries.conf.d/20-b.conf", table("etc-b"))
    put(system / "registries.conf.d/30-c.txt", table("not-read"))
    assert location() == "etc-b"
    put(own / "registries.conf.d/x.conf", table("own-drop-in"))
    assert location() == "own-drop-in"
    put(own / "registries.conf.d/x.conf", "")
    assert location() == "etc-b"
    put(own / "registries.conf", table("own"))
    assert location() == "own", "the user's file stands for the system's, drop-ins included"
    assert (
        location({"HOME": "/nowhere", "XDG_CONFIG_HOME": str(tmp_path / "home/.config")}) == "own"
    )
    for folder in (own, system):
        for file in (folder / "registries.conf.d").iterdir():
            file.unlink()
    variable = put(tmp_path / "variable.conf", table("variable"))
    given = put(tmp_path / "told.conf", table("told"))
    assert location(home | {"CONTAINERS_REGISTRIES_CONF": str(variable)}) == "variable"
    assert location(home | {"CONTAINERS_REGISTRIES_CONF": str(variable)}, given) == "told"


def test_a_file_that_was_told_must_be_there_and_readable(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing\.conf"):
        registries_from({}, given=tmp_path / "missing.conf", system=tmp_path)
    with pytest.raises(UsageError, match=r"missing\.conf"):
        registries_from(
            {"CONTAINERS_REGISTRIES_CONF": str(tmp_path / "missing.conf")}, system=tmp_path
        )
    with pytest.raises(LocalError, match="cannot read"):
        registries_from({}, given=tmp_path, system=tmp_path)
    big = put(tmp_path / "big.conf", "#" * (5 << 20))
    with pytest.raises(LocalError, match="expected at most"):
        registries_from({}, given=big, system=tmp_path)
