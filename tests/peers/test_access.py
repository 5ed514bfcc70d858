"""Ways into a real registry behind TLS and a password.

Files, helpers, standard input; and what a closed door says.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.harness import command
from tests.helpers.servers import peers
from tests.helpers.servers.proxy import proxy
from tests.peers import corpus

CREDS = f"{peers.USER}:{peers.PASSWORD}"


@pytest.fixture(scope="module")
def closed(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[peers.Server]:
    """Holds `closed:v1`."""
    with peers.docker_registry(tmp_path_factory.mktemp("closed"), auth=True, tls=True) as server:
        target = f"docker://{server.host}/closed:v1"
        skopeo = peers.skopeo_old()
        skopeo("copy", "--dest-tls-verify=false", "--dest-creds", CREDS, f"oci:{plain}:v1", target)
        yield server


@pytest.fixture
def certs(closed: peers.Server, tmp_path: Path) -> Path:
    """For --cert-dir."""
    assert closed.ca is not None
    (tmp_path / "certs").mkdir()
    shutil.copy(closed.ca, tmp_path / "certs" / "ca.crt")
    return tmp_path / "certs"


def helper(folder: Path, name: str, script: str) -> None:
    """A credential helper program; it notes what it was asked."""
    folder.mkdir(exist_ok=True)
    program = folder / f"docker-credential-{name}"
    program.write_text(
        f'#!/bin/sh\nread -r server || true\necho "$1 $server" >> {folder}/asked\n{script}\n'
    )
    program.chmod(0o755)


def knows(user: str, secret: str) -> str:
    return f"printf '%s' '{json.dumps({'ServerURL': 'x', 'Username': user, 'Secret': secret})}'"


def pull(
    closed: peers.Server, home: Path, *words: str | Path, check: bool = True, **how: object
) -> command.Ended:
    return command.zpull(
        home,
        f"{closed.host}/closed:v1",
        "--format",
        "json",
        *words,
        check=check,
        **how,  # type: ignore[arg-type]
    )


def test_credentials_come_from_standard_input(
    closed: peers.Server, certs: Path, plain: Path, tmp_path: Path
) -> None:
    with closed.watched() as hits:
        ended = pull(closed, tmp_path, "--creds", "-", "--cert-dir", certs, stdin=f"{CREDS}\n")
    assert ended.receipt["image_id"] == corpus.truth(plain, "v1").config_digest
    assert ended.receipt["bytes"]["fetched"] == sum(hit.sent for hit in hits)
    assert ended.receipt["requests"] == len(hits)
    assert peers.PASSWORD not in ended.err


def test_a_wrong_password_is_denied_and_not_repeated(
    closed: peers.Server, certs: Path, tmp_path: Path
) -> None:
    ended = pull(
        closed, tmp_path, "--creds", f"{peers.USER}:wr0ng", "--cert-dir", certs, check=False
    )
    assert ended.code == 4
    assert f"the credentials of user '{peers.USER}' do not open it" in ended.error
    assert "wr0ng" not in ended.err
    nothing = pull(closed, tmp_path, "--cert-dir", certs, check=False)
    assert nothing.code == 4
    assert f"no credentials for {closed.host} were found" in nothing.error
    assert "--creds" in nothing.error


@pytest.mark.parametrize("verify", [(), ("--tls-verify=true",)])
def test_a_ca_that_nobody_knows_says_what_to_do(
    closed: peers.Server, tmp_path: Path, verify: tuple[str, ...]
) -> None:
    ended = pull(closed, tmp_path, "--creds", CREDS, *verify, check=False)
    assert ended.code == 5
    assert "certificate is not trusted" in ended.error
    assert "--cert-dir DIR" in ended.error
    assert "--tls-verify=false" in ended.error
    assert peers.PASSWORD not in ended.err
    pull(closed, tmp_path, "--creds", CREDS, "--tls-verify=false")


def test_certificates_are_found_by_the_name_of_the_host(
    closed: peers.Server, certs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / ".config/containers/certs.d" / closed.host
    folder.parent.mkdir(parents=True)
    folder.symlink_to(certs)
    pull(closed, tmp_path, "--creds", CREDS)
    folder.unlink()
    pull(
        closed,
        tmp_path,
        "--creds",
        CREDS,
        "--store",
        tmp_path / "b",
        env={"ZPULL_CERT_DIR": str(certs)},
    )
    assert (
        pull(closed, tmp_path, "--creds", CREDS, "--cert-dir", tmp_path / "none", check=False).code
        == 8
    )


def test_a_registry_that_wants_to_see_our_certificate(plain: Path, tmp_path: Path) -> None:
    skopeo = peers.skopeo_old()
    with peers.docker_registry(tmp_path / "registry", tls=True, mutual=True) as server:
        folder = tmp_path / "certs"
        folder.mkdir()
        for name, here in {
            "ca.pem": "ca.crt",
            "client.cert": "client.cert",
            "client.key": "client.key",
        }.items():
            shutil.copy(tmp_path / "registry" / name, folder / here)
        skopeo(
            "copy",
            "--dest-cert-dir",
            folder,
            f"oci:{plain}:v1",
            f"docker://{server.host}/closed:v1",
        )
        pull(server, tmp_path, "--cert-dir", folder)
        (folder / "client.key").unlink()
        ended = pull(server, tmp_path, "--cert-dir", folder, check=False)
        assert ended.code == 8
        assert "client.cert lacks its key, client.key" in ended.error
        (folder / "client.cert").unlink()
        assert (
            pull(server, tmp_path, "--cert-dir", folder, "--patience", "0", check=False).code == 5
        )


@pytest.mark.parametrize("entry", ["credHelpers", "credsStore"])
def test_a_helper_program_keeps_the_password(
    closed: peers.Server, certs: Path, tmp_path: Path, entry: str
) -> None:
    helper(tmp_path / "bin", "vault", knows(peers.USER, peers.PASSWORD))
    config = (
        {"credHelpers": {closed.host: "vault"}}
        if entry == "credHelpers"
        else {"credsStore": "vault"}
    )
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text(json.dumps(config))
    env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    ended = pull(closed, tmp_path, "--cert-dir", certs, env=env)
    assert (tmp_path / "bin/asked").read_text() == f"get {closed.host}\n", (
        "asked once, for all connections"
    )
    assert peers.PASSWORD not in ended.err + ended.out


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        (knows(peers.USER, "hush-hush"), 4, "do not open it"),
        ("echo hush-hush >&2; exit 1", 4, "could not be looked up: docker-credential-vault"),
        ("echo 'credentials not found in native keychain'; exit 1", 4, "no credentials for"),
        ("echo hush-hush", 4, "something else than a user name and a secret"),
    ],
)
def test_a_helper_program_that_is_of_no_help(
    closed: peers.Server, certs: Path, tmp_path: Path, script: str, code: int, says: str
) -> None:
    helper(tmp_path / "bin", "vault", script)
    auth = tmp_path / "auth.json"
    auth.write_text(json.dumps({"credHelpers": {closed.host: "vault"}}))
    env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    ended = pull(closed, tmp_path, "--cert-dir", certs, "--authfile", auth, env=env, check=False)
    assert ended.code == code
    assert says in ended.error
    assert "hush" not in ended.err + ended.out


def test_an_authfile_by_option_or_variable(
    closed: peers.Server, certs: Path, tmp_path: Path
) -> None:
    auth = tmp_path / "auth.json"
    skopeo = peers.skopeo_old()
    skopeo(
        *("login", "--tls-verify=false", "--authfile", auth,
          "-u", peers.USER, "-p", peers.PASSWORD), closed.host,
    )  # fmt: skip
    pull(closed, tmp_path, "--cert-dir", certs, "--authfile", auth)
    elsewhere = ("--store", tmp_path / "b", "--cert-dir", certs)
    pull(closed, tmp_path, *elsewhere, env={"REGISTRY_AUTH_FILE": str(auth)})
    missing = pull(closed, tmp_path, *elsewhere, "--authfile", tmp_path / "none.json", check=False)
    assert missing.code == 2
    assert "none.json" in missing.error


# ── proxies ──


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_leads_to_a_registry_behind_tls(
    closed: peers.Server, certs: Path, tmp_path: Path, variable: str
) -> None:
    """The proxy knows the way to registry.test; TLS and its checks run through its tunnel."""
    name = f"registry.test:{closed.host.rpartition(':')[2]}"
    words = (f"{name}/closed:v1", "--creds", CREDS, "--cert-dir", certs, "--format", "json")
    with proxy(closed.host) as through:
        env = {variable: f"http://{through.host}"}
        with closed.watched() as hits:
            receipt = command.zpull(tmp_path, *words, env=env).receipt
        assert receipt["bytes"]["fetched"] == sum(hit.sent for hit in hits)
        assert receipt["requests"] == len(hits)
        assert through.asked
        assert all(head.startswith(f"CONNECT {name} ".encode()) for head in through.asked)
        before = len(through.asked)
        apart = ("--store", tmp_path / "b", "--patience", "0")
        ended = command.zpull(
            tmp_path, *words, *apart, env=env | {"NO_PROXY": "registry.test"}, check=False
        )
        assert ended.code == 5
        assert "the name does not exist" in ended.error
        assert len(through.asked) == before
        pull(closed, tmp_path, "--creds", CREDS, "--cert-dir", certs, *apart, env=env)
        assert len(through.asked) == before, "loopback needs no proxy"


def test_a_proxy_that_refuses_is_named_without_its_password(
    closed: peers.Server, tmp_path: Path
) -> None:
    with proxy(closed.host, refuses=True) as through:
        env = {"HTTPS_PROXY": f"http://me:hush-hush@{through.host}"}
        ended = command.zpull(
            tmp_path, "registry.test/closed:v1", "--patience", "0", env=env, check=False
        )
    assert ended.code == 4
    assert "407 from the proxy" in ended.error
    assert "hush" not in ended.err
