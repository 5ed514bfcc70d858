"""Mirrors as registries.conf names them, with real registries in every role."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from tests.helpers.harness import command
from tests.helpers.servers import peers
from tests.peers import corpus


def conf(home: Path, primary: str, *mirrors: str) -> Path:
    """`mirrors`: what stands in each mirror's table."""
    tables = "".join([f"[[registry.mirror]]\n{mirror}\n" for mirror in mirrors])
    path = home / "registries.conf"
    path.write_text(f'[[registry]]\nlocation = "{primary}"\n{tables}')
    return path


def at(host: str, *more: str) -> str:
    return "\n".join([f'location = "{host}"', *more])


def pulled(home: Path, path: Path, name: str, *words: str | Path, **how: Any) -> dict[str, Any]:
    ended = command.zpull(
        home, name, "--registries-conf", path, "--format", "json", "--patience", "0", *words, **how
    )  # fmt: skip
    spent = ended.receipt["bytes"]
    assert spent["fetched"] == spent["needed"] + spent["metadata"] + spent["gap"] + spent["wasted"]
    assert ended.receipt["retries"] == 0
    return ended.receipt


def test_an_empty_mirror_a_dead_one_and_a_good_one(
    front: peers.Server, old: str, plain: Path, tmp_path: Path
) -> None:
    """All servers together sent what the receipt says, and the primary nothing at all."""
    with (
        peers.docker_registry(tmp_path / "empty") as empty,
        peers.docker_registry(tmp_path / "primary") as primary,
    ):
        path = conf(tmp_path, primary.host, at(empty.host), at("127.0.0.1:1"), at(front.host))
        for tag in ("v1", "v2"):
            with front.watched() as good, empty.watched() as lacking, primary.watched() as last:
                receipt = pulled(tmp_path, path, f"{primary.host}/{old}:{tag}")
            assert receipt["image_id"] == corpus.truth(plain, tag).config_digest
            assert receipt["bytes"]["fetched"] == sum(hit.sent for hit in (*good, *lacking))
            assert receipt["requests"] == len(good) + len(lacking)
            assert not last
            assert {hit.status for hit in lacking} == {404}
            assert {layer["mode"] for layer in receipt["layers"]} <= {"whole", "partial", "cached"}


def test_a_mirror_that_lacks_a_blob(
    registry: peers.Server, old: str, plain: Path, tmp_path: Path
) -> None:
    """It has v1 and is asked for v2: the layers that both have come from it."""
    skopeo = peers.skopeo_old()
    with peers.docker_registry(tmp_path / "mirror") as mirror, registry.watched():
        skopeo(
            *("copy", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false"),
            *(f"docker://{registry.host}/{old}:v1", f"docker://{mirror.host}/{old}:v1"),
        )  # fmt: skip
        path = conf(tmp_path, registry.host, at(mirror.host))
        with registry.watched() as last, mirror.watched() as first:
            receipt = pulled(tmp_path, path, f"{registry.host}/{old}:v2")
        assert receipt["image_id"] == corpus.truth(plain, "v2").config_digest
        assert receipt["bytes"]["fetched"] == sum(hit.sent for hit in (*first, *last))
        assert any(hit.is_blob and hit.status in (200, 206) for hit in first)
        assert any(hit.is_blob and hit.status in (200, 206) for hit in last)
        assert not {hit.path for hit in first if hit.status in (200, 206)} & {
            hit.path for hit in last
        }


def test_a_mirror_killed_in_the_middle_of_a_layer(
    registry: peers.Server, old: str, plain: Path, shared: Path, tmp_path: Path
) -> None:
    """It trickles; once some bytes are here it is gone.

    The primary sends the rest and no byte twice.
    """
    with (
        peers.docker_registry(tmp_path / "primary", storage=shared / "storage") as primary,
        primary.watched() as hits,
    ):
        name = f"{primary.host}/{old}:v1"
        with peers.nginx(
            tmp_path / "mirror", upstream=registry.url, rules="limit_rate 100k;"
        ) as mirror:
            path = conf(tmp_path, primary.host, at(mirror.host))
            argv = [
                *command.ARGV,
                name,
                "--registries-conf",
                str(path),
                "--format",
                "json",
                "--patience",
                "0",
            ]
            running = subprocess.Popen(
                argv,
                env=command.environment(tmp_path),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            store = tmp_path / "store"
            peers.wait_for(
                lambda: (
                    sum(
                        file.stat().st_size
                        for file in store.rglob("*")
                        if file.parent.name == "blobs"
                    )
                    > 150_000
                ),
                "bytes from the mirror",
            )
        out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    receipt = command.Ended(0, out, err).receipt
    assert receipt["image_id"] == corpus.truth(plain, "v1").config_digest
    assert err.count("going on without mirror") == 1
    assert receipt["bytes"]["wasted"] == 0
    assert receipt["retries"] == 0
    direct = sum(hit.sent for hit in hits if hit.status == 206)
    assert 0 < direct < receipt["bytes"]["fetched"] - 100_000


def test_a_mirror_behind_tls_of_its_own_making(
    registry: peers.Server, old: str, shared: Path, tmp_path: Path
) -> None:
    """Without `insecure` its certificate is refused, and that is said; the primary serves."""
    with peers.docker_registry(tmp_path / "mirror", storage=shared / "storage", tls=True) as mirror:
        name = f"{registry.host}/{old}:v1"
        path = conf(tmp_path, registry.host, at(mirror.host))
        ended = command.zpull(tmp_path, name, "--registries-conf", path, "--patience", "0")
        assert (
            f"going on without mirror {mirror.host}/{old}: {mirror.host}: its TLS "
            "certificate is not"
        ) in ended.err
        path = conf(tmp_path, registry.host, at(mirror.host, "insecure = true"))
        with registry.watched() as primary, mirror.watched() as hits:
            receipt = pulled(tmp_path, path, name, "--store", tmp_path / "b")
        assert not primary
        assert receipt["bytes"]["fetched"] == sum(hit.sent for hit in hits)


def test_a_mirror_with_a_password_and_a_location_that_is_rewritten(
    old: str, registry: peers.Server, plain: Path, tmp_path: Path
) -> None:
    skopeo = peers.skopeo_old()
    with peers.docker_registry(tmp_path / "mirror", auth=True) as mirror:
        creds = f"{peers.USER}:{peers.PASSWORD}"
        skopeo(
            *("copy", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false",
              "--dest-creds", creds),
            *(f"docker://{registry.host}/{old}:v1", f"docker://{mirror.host}/deep/copy:v1"),
        )  # fmt: skip
        auth = tmp_path / "auth.json"
        skopeo(
            "login",
            "--tls-verify=false",
            "--authfile",
            auth,
            "-u",
            peers.USER,
            "-p",
            peers.PASSWORD,
            mirror.host,
        )
        path = tmp_path / "registries.conf"
        table = (
            '[[registry]]\nprefix = "*.corp.test"\nlocation = "127.0.0.1:1"\n[[registry.mirror]]\n'
        )
        path.write_text(table + at(f"{mirror.host}/deep"))
        receipt = pulled(tmp_path, path, "eu.corp.test/copy:v1", "--authfile", auth)
        assert receipt["image_id"] == corpus.truth(plain, "v1").config_digest
        assert receipt["reference"] == "eu.corp.test/copy:v1"
        words = ("--registries-conf", path, "--creds", creds, "--patience", "0")
        denied = command.zpull(tmp_path, "eu.corp.test/copy:v1", *words, check=False)
        assert denied.code == 5, "what is typed for one host is not shown to another"
        assert f"no credentials for {mirror.host} were found" in denied.error
        assert "--creds is shown to the host in the image's name alone" in denied.error
