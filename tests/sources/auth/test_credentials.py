"""Credentials: whose entry wins, from which file, and what a helper program is told."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.errors import LocalError, UsageError
from zchunked.sources.auth.credentials import Credentials, Keyring, most_specific, normalised

SECRET = "s3cr3t:with:colons"


def auth(user: str, password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment without any credentials."""
    return {
        "HOME": str(tmp_path / "home"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "PATH": "/usr/bin:/bin",
    }


def find(
    environment: dict[str, str], host: str = "r.example", repository: str = "a/b", **options: Any
) -> Credentials | None:
    return Keyring(environment, **options).find(host, repository)


def user(
    environment: dict[str, str], host: str = "r.example", repository: str = "a/b", **options: Any
) -> str | None:
    found = find(environment, host, repository, **options)
    return found.username if found else None


# ── which file ──


def test_the_files_are_asked_in_the_order_of_the_container_tools(
    home: dict[str, str], tmp_path: Path
) -> None:
    def entry(name: str) -> dict[str, Any]:
        return {"auths": {"r.example": auth(name)}}

    assert find(home) is None
    put(tmp_path / "home/.dockercfg", {"https://r.example": auth("dockercfg")})
    assert user(home) == "dockercfg"
    put(tmp_path / "home/.docker/config.json", entry("docker"))
    assert user(home) == "docker"
    put(tmp_path / "elsewhere/config.json", entry("docker-config"))
    assert user(home | {"DOCKER_CONFIG": str(tmp_path / "elsewhere")}) == "docker-config"
    put(tmp_path / "home/.config/containers/auth.json", entry("config"))
    assert user(home) == "config"
    put(tmp_path / "xdg/containers/auth.json", entry("xdg"))
    assert user(home | {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}) == "xdg"
    put(tmp_path / "run/containers/auth.json", entry("runtime"))
    assert user(home) == "runtime"
    told = put(tmp_path / "told.json", entry("told"))
    assert user(home | {"REGISTRY_AUTH_FILE": str(told)}) == "told"
    authfile = put(tmp_path / "authfile.json", entry("authfile"))
    assert user(home | {"REGISTRY_AUTH_FILE": str(told)}, authfile=authfile) == "authfile"
    assert user(home, explicit=Credentials("typed", "x")) == "typed"


def test_a_file_that_was_told_is_the_only_one(home: dict[str, str], tmp_path: Path) -> None:
    put(tmp_path / "run/containers/auth.json", {"auths": {"r.example": auth("runtime")}})
    told = put(tmp_path / "told.json", {"auths": {}})
    assert find(home, authfile=told) is None
    assert find(home | {"REGISTRY_AUTH_FILE": str(tmp_path / "missing")}) is None
    with pytest.raises(UsageError, match=r"missing\.json"):
        find(home, authfile=tmp_path / "missing.json")


def test_a_file_without_an_entry_for_the_host_is_passed_over(
    home: dict[str, str], tmp_path: Path
) -> None:
    put(tmp_path / "run/containers/auth.json", {"auths": {"other.example": auth("other")}})
    put(tmp_path / "home/.docker/config.json", {"auths": {"r.example": auth("docker")}})
    assert user(home) == "docker"


# ── which entry ──


@pytest.mark.parametrize(
    ("key", "host", "path"),
    [
        ("r.example", "r.example", ""),
        ("R.Example:5000/team", "r.example:5000", "team"),
        ("https://r.example/team", "r.example", ""),
        ("http://r.example/v2/", "r.example", ""),
        ("r.example/v1/", "r.example", ""),
        ("https://index.docker.io/v1/", "docker.io", ""),
        ("index.docker.io/me", "docker.io", "me"),
        ("registry-1.docker.io", "docker.io", ""),
    ],
)
def test_what_a_key_stands_for(key: str, host: str, path: str) -> None:
    assert normalised(key) == (host, path)


def test_the_longest_prefix_in_whole_components_wins() -> None:
    keys = [
        "r.example",
        "r.example/a",
        "r.example/a/b",
        "r.example/a/bc",
        "r.example/a/b/c/d",
        "other.example/a/b/c",
    ]
    assert most_specific(keys, "r.example", "a/b/c") == "r.example/a/b"
    assert most_specific(keys, "r.example", "a/bc") == "r.example/a/bc"
    assert most_specific(keys, "r.example", "ab") == "r.example"
    assert most_specific(keys, "r.example:5000", "a/b") is None
    assert most_specific(["https://r.example/v2/", "r.example"], "r.example", "x") == "r.example"


@given(
    st.lists(st.lists(st.sampled_from("ab"), max_size=4), max_size=8),
    st.lists(st.sampled_from("ab"), min_size=1, max_size=4),
)
def test_no_key_that_fits_is_longer_than_the_one_chosen(
    paths: list[list[str]], repository: list[str]
) -> None:
    keys = ["/".join(["r.example", *path]) for path in paths]
    chosen = most_specific(keys, "r.example", "/".join(repository))
    fitting = [path for path in paths if repository[: len(path)] == path]
    if chosen is None:
        assert not fitting
    else:
        assert len(chosen.split("/")) - 1 == max(map(len, fitting))


@pytest.mark.parametrize(
    "key", ["docker.io", "index.docker.io", "registry-1.docker.io", "https://index.docker.io/v1/"]
)
def test_docker_hub_has_many_names(home: dict[str, str], tmp_path: Path, key: str) -> None:
    put(tmp_path / "run/containers/auth.json", {"auths": {key: auth("hub")}})
    assert user(home, "docker.io", "library/busybox") == "hub"


def test_what_an_entry_may_hold(home: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "run/containers/auth.json"
    put(path, {"auths": {"r.example": auth("u")}, "unknown": 1})
    assert find(home) == Credentials("u", SECRET)
    put(path, {"auths": {"r.example": {"username": "u", "password": "p"}}})
    assert find(home) == Credentials("u", "p")
    put(path, {"auths": {"r.example": {"auth": auth("u")["auth"].rstrip("="), "email": "x"}}})
    assert find(home) == Credentials("u", SECRET)
    put(path, {"auths": {"r.example": {"identitytoken": "i"}}})
    assert find(home) == Credentials(identity_token="i")
    put(path, {"auths": {"r.example": {"registrytoken": "r"}}})
    assert find(home) == Credentials(registry_token="r")
    empties: list[Any] = ["", "{}", {"auths": None}, {"auths": {"r.example": {}}}]
    for empty in empties:
        put(path, empty)
        assert find(home) is None


def test_secrets_are_not_in_a_representation() -> None:
    assert SECRET not in repr(Credentials("u", SECRET, SECRET, SECRET))


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"auths": {"r.example": {"auth": 5}}}',
        '{"auths": {"r.example": "hush-hush"}}',
        '{"auths": {"r.example": {"auth": "hush-hush!"}}}',
        # base64 of hush-hush, without a colon
        '{"auths": {"r.example": {"auth": "aHVzaC1odXNo"}}}',
        '{"auths": {"r.example": {"auth": "/////w=="}}}',
        "[" * 100_000,
        "\x00",
    ],
)
def test_a_malformed_file_is_named_but_not_quoted(
    home: dict[str, str], tmp_path: Path, content: str
) -> None:
    path = put(tmp_path / "run/containers/auth.json", content)
    with pytest.raises(LocalError, match=r"auth\.json") as caught:
        find(home)
    assert str(path) in str(caught.value)
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_directory_is_no_file(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "run/containers/auth.json").mkdir(parents=True)
    with pytest.raises(LocalError):
        find(home)


# ── helpers ──


@pytest.fixture
def helper(home: dict[str, str], tmp_path: Path) -> Callable[[str, str], Path]:
    """Makes a real helper program, which notes what it was asked."""

    def make(name: str, script: str) -> Path:
        program = tmp_path / "bin" / f"docker-credential-{name}"
        put(
            program,
            f'#!/bin/sh\nread -r server || true\necho "$1 $server" >> {tmp_path}/asked\n{script}\n',
        )
        program.chmod(0o755)
        return tmp_path / "asked"

    home["PATH"] = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    return make


def answer(username: str, secret: str) -> str:
    return f"echo '{json.dumps({'ServerURL': 'x', 'Username': username, 'Secret': secret})}'"


def test_a_helper_for_the_host_comes_before_all_else(
    home: dict[str, str], tmp_path: Path, helper: Callable[[str, str], Path]
) -> None:
    asked = helper("own", answer("helped", SECRET))
    helper("store", answer("stored", "x"))
    put(
        tmp_path / "run/containers/auth.json",
        {
            "auths": {"r.example": auth("u")},
            "credHelpers": {"r.example": "own"},
            "credsStore": "store",
        },
    )
    assert find(home) == Credentials("helped", SECRET)
    assert asked.read_text() == "get r.example\n"
    assert user(home, "other.example") == "stored"


def test_an_empty_entry_asks_the_store(
    home: dict[str, str], tmp_path: Path, helper: Callable[[str, str], Path]
) -> None:
    asked = helper("store", answer("stored", "p"))
    path = put(
        tmp_path / "home/.docker/config.json", {"auths": {"r.example": {}}, "credsStore": "store"}
    )
    assert find(home) == Credentials("stored", "p")
    put(path, {"auths": {"r.example": auth("u")}, "credsStore": "store"})
    assert user(home) == "u"
    put(path, {"auths": {"https://index.docker.io/v1/": {}}, "credsStore": "store"})
    assert user(home, "docker.io", "library/x") == "stored"
    assert asked.read_text() == "get r.example\nget https://index.docker.io/v1/\n"


def test_a_token_from_a_helper_is_an_identity_token(
    home: dict[str, str], tmp_path: Path, helper: Callable[[str, str], Path]
) -> None:
    helper("own", answer("<token>", "i"))
    put(tmp_path / "run/containers/auth.json", {"credHelpers": {"r.example": "own"}})
    assert find(home) == Credentials(identity_token="i")


def test_a_helper_that_knows_nothing_lets_the_next_file_speak(
    home: dict[str, str], tmp_path: Path, helper: Callable[[str, str], Path]
) -> None:
    helper("own", "echo 'credentials not found in native keychain'; exit 1")
    put(tmp_path / "run/containers/auth.json", {"credHelpers": {"r.example": "own"}})
    put(tmp_path / "home/.docker/config.json", {"auths": {"r.example": auth("docker")}})
    assert user(home) == "docker"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo hush-hush; exit 3", "exit code 3"),
        ("echo hush-hush", "something else"),
        ('echo \'{"Username": "hush-hush"}\'', "something else"),
        ("sleep 5", "no answer within"),
    ],
)
def test_a_helper_that_fails_is_named_and_never_quoted(
    home: dict[str, str], tmp_path: Path, helper: Callable[[str, str], Path], script: str, said: str
) -> None:
    helper("own", script)
    put(tmp_path / "run/containers/auth.json", {"credHelpers": {"r.example": "own"}})
    with pytest.raises(LocalError, match=said) as caught:
        find(home, helper_seconds=0.2)
    assert "docker-credential-own" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_helper_that_hangs_is_waited_for_once(
    home: dict[str, str], tmp_path: Path, helper: Callable[[str, str], Path]
) -> None:
    """Mirrors and the registry behind them often share one helper."""
    asked = helper("own", "exec sleep 30")
    helpers = {"r.example": "own", "mirror.example": "own"}
    put(tmp_path / "run/containers/auth.json", {"credHelpers": helpers, "credsStore": "own"})
    keyring = Keyring(home, helper_seconds=0.2)
    told = set()
    for host in ("r.example", "mirror.example", "other.example", "r.example"):
        with pytest.raises(LocalError, match="no answer within") as caught:
            keyring.find(host, "a/b")
        told.add(str(caught.value))
    assert (len(told), asked.read_text()) == (1, "get r.example\n")


def test_a_helper_that_is_not_there(home: dict[str, str], tmp_path: Path) -> None:
    put(tmp_path / "run/containers/auth.json", {"credsStore": "nowhere"})
    with pytest.raises(LocalError, match="docker-credential-nowhere, which is not on the PATH"):
        find(home)


def test_where_a_helper_fails_the_next_file_may_still_speak(
    home: dict[str, str], tmp_path: Path
) -> None:
    put(tmp_path / "config/containers/auth.json", {"credHelpers": {"r.example": "nowhere"}})
    put(tmp_path / "docker/config.json", {"auths": {"r.example": auth("u", "p")}})
    environment = home | {
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "DOCKER_CONFIG": str(tmp_path / "docker"),
    }
    assert Keyring(environment).find("r.example", "x") == Credentials("u", "p")


@pytest.mark.parametrize(
    "wrap", [base64.encodebytes, lambda data: base64.b64encode(data) + b"\r\n"]
)
def test_base64_that_was_wrapped(
    home: dict[str, str], tmp_path: Path, wrap: Callable[[bytes], bytes]
) -> None:
    put(
        tmp_path / "auth.json",
        {"auths": {"r.example": {"auth": wrap(b"u:" + b"p" * 100).decode()}}},
    )
    assert Keyring(home, authfile=tmp_path / "auth.json").find("r.example", "x") == Credentials(
        "u", "p" * 100
    )


@pytest.mark.parametrize("name", ["../evil", "a b", "x;touch owned", "", "-x", "a\nb"])
def test_a_helper_name_never_becomes_a_path_or_a_command(
    home: dict[str, str], tmp_path: Path, name: str
) -> None:
    put(tmp_path / "run/containers/auth.json", {"credHelpers": {"r.example": name}})
    with pytest.raises(LocalError, match="invalid name of a credential helper"):
        find(home)


def test_the_server_name_is_data_to_the_helper(
    home: dict[str, str],
    tmp_path: Path,
    helper: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = helper("own", answer("u", "p"))
    hostile = "$(touch${IFS}owned);touch owned"
    put(tmp_path / "run/containers/auth.json", {"credHelpers": {hostile: "own"}})
    monkeypatch.chdir(tmp_path)
    assert user(home, hostile) == "u"
    assert not (tmp_path / "owned").exists()
    assert asked.read_text() == f"get {hostile}\n"
