"""`zpull serve` over TLS: clients that check its certificate, tokens, and files that are no use."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import requests

from tests.helpers.build.front import gzip_layer, image, make_tar
from tests.helpers.harness.command import ARGV, environment, zpull
from tests.helpers.harness.rough import files
from tests.helpers.servers import engines, peers
from tests.helpers.servers.registry import Registry
from tests.serve.test_restart import free_port, serving

IMAGE = image([gzip_layer(make_tar(files(1, 10, 9000)))])
MANIFEST, BLOB = "/v2/local/demo/manifests/t", f"/v2/local/demo/blobs/{IMAGE.layers[0].digest}"
TOKEN = "0123456789abcdef-token"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, and server.pem with server.key for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    peers.certificates(folder)
    return folder


def words(made: Path) -> list[str]:
    return ["--tls-cert", f"{made}/server.pem", "--tls-key", f"{made}/server.key"]


@pytest.mark.peer
def test_clients_that_check_the_certificate(made: Path, tmp_path: Path) -> None:
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    with Registry({"t": IMAGE}) as registry, serving(tmp_path, port, registry.host, *words(made)):
        for path, data in ((MANIFEST, IMAGE.manifest), (BLOB, IMAGE.layers[0].blob)):
            assert requests.get(url + path, verify=str(made / "ca.pem"), timeout=30).content == data
        part = requests.get(
            url + BLOB, verify=str(made / "ca.pem"), timeout=30, headers={"Range": "bytes=5-9"}
        )
        assert (part.status_code, part.content) == (206, IMAGE.layers[0].blob[5:10])
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(url + MANIFEST, timeout=30)  # by a stranger
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(f"http://127.0.0.1:{port}{MANIFEST}", timeout=30)
        assert requests.get(f"{url}/healthz", verify=str(made / "ca.pem"), timeout=30).ok


@pytest.mark.peer
def test_a_token_over_tls(made: Path, tmp_path: Path) -> None:
    """By curl as Bearer, by skopeo as a password."""
    peers.require("curl")
    port, token = free_port(), tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    curl = peers.Tool(("curl", "--silent", "--show-error", "--cacert", f"{made}/ca.pem"))
    url = f"https://127.0.0.1:{port}"
    more = [*words(made), "--token", str(token)]
    with Registry({"t": IMAGE}) as registry, serving(tmp_path, port, registry.host, *more):
        refused = curl("--write-out", "%{http_code}", f"{url}{MANIFEST}")
        assert refused.endswith("401")
        assert curl("-H", f"Authorization: Bearer {TOKEN}", f"{url}{MANIFEST}") == (
            IMAGE.manifest.decode()
        )
        (tmp_path / "certs").mkdir()
        (tmp_path / "certs" / "ca.crt").write_bytes((made / "ca.pem").read_bytes())
        skopeo = peers.skopeo_old()
        where = ("--cert-dir", f"{tmp_path}/certs", "--creds", f"any:{TOKEN}", "--raw")
        said = skopeo("inspect", *where, f"docker://127.0.0.1:{port}/local/demo:t")
        assert said.strip() == IMAGE.manifest.decode().strip()


@pytest.mark.peer
def test_containerd_follows_what_is_printed_for_it(made: Path, tmp_path: Path) -> None:
    """With the CA that vouches for the server, which is the owner's to name."""
    port = free_port()
    hosts = tmp_path / "certs.d" / "_default" / "hosts.toml"
    hosts.parent.mkdir(parents=True)
    told = ("serve", "--listen", f"127.0.0.1:{port}", "--config-for", "containerd", *words(made))
    hosts.write_text(f'{zpull(tmp_path, *told).out}  ca = "{made}/ca.pem"\n')
    with (
        Registry({"t": IMAGE}) as registry,
        serving(tmp_path, port, registry.host, *words(made)),
        engines.containerd(tmp_path / "containerd", "new") as env,
    ):
        pull = ("ctr", "images", "pull", "--hosts-dir", str(tmp_path / "certs.d"))
        engines.run(env, *pull, "local/demo:t")
        assert IMAGE.digest in engines.run(env, "ctr", "images", "ls", "name==local/demo:t")


@pytest.mark.peer
def test_files_that_are_no_use(made: Path, tmp_path: Path) -> None:
    """Each is named, with what was expected; a passphrase is not asked for."""
    other, locked, gone = tmp_path / "other", tmp_path / "locked.key", tmp_path / "gone"
    other.mkdir()
    peers.certificates(other)
    convert = ("openssl", "pkcs8", "-topk8", "-in", f"{made}/server.key", "-passout", "pass:x")
    subprocess.run([*convert, "-out", str(locked)], check=True, capture_output=True)
    good, key = made / "server.pem", made / "server.key"
    for certificate, secret, code, wanted in (
        (gone, key, 8, f"cannot read --tls-cert {gone}: No such file"),
        (good, gone, 8, f"cannot read --tls-key {gone}: No such file"),
        (good, tmp_path, 8, f"cannot read --tls-key {tmp_path}: Is a directory"),
        (good, other / "server.key", 8, f"is not the key of --tls-cert {good}"),
        (key, good, 8, "expected a certificate and its key in PEM form"),
        (good, locked, 8, f"invalid --tls-key {locked}: expected a key without a passphrase"),
        (good, None, 2, "--tls-cert and --tls-key belong together"),
    ):
        own = ["--tls-cert", str(certificate), *(["--tls-key", str(secret)] if secret else [])]
        found = zpull(tmp_path / "home", "serve", "--listen", "127.0.0.1:0", *own, check=False)
        assert (found.code, wanted in found.err) == (code, True), found.err


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_other_machines_need_tls_or_a_word_for_it(host: str, tmp_path: Path) -> None:
    """And who says that word is told what it means."""
    port = free_port()
    told = ["serve", "--listen", f"{host}:{port}"]
    refused = zpull(tmp_path, *told, check=False)
    assert refused.code == 2
    assert "who would pull with your credentials, unencrypted" in refused.err
    argv = [*ARGV, *told, "--insecure-listen"]
    with subprocess.Popen(argv, env=environment(tmp_path), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = [process.stderr.readline().decode() for _ in range(2)]
        process.terminate()
        process.stderr.read()
    assert said[1].startswith(f"zpull: everyone who reaches {host}:{port} can pull with your")
    assert os.sep in said[0]
