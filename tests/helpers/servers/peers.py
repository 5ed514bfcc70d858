"""Real peers on loopback, as Debian installs them, each in its own folder, counted by its log."""

import itertools
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

import pytest

T = TypeVar("T")
TRIXIE = Path(os.environ.get("ZPULL_TRIXIE", Path(__file__).parents[3] / ".cache" / "trixie"))
SYSTEM_PATH = "/usr/sbin:/sbin"  # where Debian keeps servers; not in everybody's PATH
TOOLS = Path(os.environ.get("ZPULL_TOOLS", Path(__file__).parents[3] / ".cache" / "tools"))
USER, PASSWORD = "tester", "testing"  # of every registry started with auth=True
_BCRYPT = "$2b$05$ztideboardharbourabcdep7PftclCWtxd3OSYmkIQvAtjGanXoYy"
# Root's skopeo and podman remember there which blobs they saw where, and may push another writer's
# blob for their own.
_FORGET = 'mkdir -p /var/lib/containers && mount -t tmpfs none /var/lib/containers && exec "$@"'
_APART = ("unshare", "--mount", "sh", "-c", _FORGET, "sh") if os.geteuid() == 0 else ()
_HOW_TO_GET = {
    "containerd": "apt-get install containerd",
    "curl": "apt-get install curl",
    "ctr": "apt-get install containerd",
    "docker": "apt-get install docker.io",
    "dockerd": "apt-get install docker.io",
    "docker-registry": "apt-get install docker-registry",
    "memcached": "apt-get install memcached",
    "nginx": "apt-get install nginx",
    "openssl": "apt-get install openssl",
    "podman": "apt-get install podman",
    "faketime": "apt-get install faketime",
    "skopeo": "apt-get install skopeo",
    "swift-proxy-server": (
        "apt-get install swift swift-proxy swift-account swift-container swift-object"
    ),
    "trixie": "tests/peers/trixie.sh .cache/trixie",
}


def require(*names: str) -> None:
    """Skip the test whose peer is absent, saying how to get it; fail with ZPULL_REQUIRE_PEERS=1."""
    for name in names:
        source, _, program = name.rpartition("/")
        if source == "trixie" or program == "trixie":
            path = TRIXIE / "run" if not source else TRIXIE / "usr" / "sbin" / program
            if path.exists() or TRIXIE.joinpath("usr", "bin", program).exists():
                continue
        elif shutil.which(name, path=_path()):
            continue
        reason = f"{name} is not here; {_HOW_TO_GET[source or name]}"
        if os.environ.get("ZPULL_REQUIRE_PEERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@dataclass(frozen=True, slots=True)
class Tool:
    """A command with its leading arguments; calling it returns what it printed on stdout."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict[str, str])

    def __call__(self, *args: str | Path, timeout: float = 300) -> str:
        argv = [*self.argv, *map(str, args)]
        done = subprocess.run(
            argv,
            env={**environment(), **self.env},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, (
            f"{' '.join(argv)} ended with {done.returncode}:\n{done.stderr[-4000:]}"
        )
        return done.stdout


def built(name: str) -> Tool:
    """A tool of tests/peers/tools.sh. Without Go 1.21 or newer it is never required."""
    path = TOOLS / name
    if not path.exists():
        reason = f"{name} is not here; tests/peers/tools.sh .cache/tools, which needs Go"
        if os.environ.get("ZPULL_REQUIRE_PEERS") == "1" and _builds_tools():
            pytest.fail(reason)
        pytest.skip(reason)
    return Tool((str(path),))


def _builds_tools() -> bool:
    """As .ci/run decides it."""
    if not shutil.which("go"):
        return False
    said = subprocess.run(["go", "version"], capture_output=True, text=True, check=False).stdout
    return re.search(r"go1\.(2[1-9]|[3-9][0-9])", said) is not None


def skopeo_old() -> Tool:
    """This Debian's skopeo; 1.9.3 writes generation 1 and loses what follows two zero blocks."""
    require("skopeo")
    return Tool((*_APART, "skopeo", "--insecure-policy"))


def skopeo_new() -> Tool:
    """The skopeo of trixie, 1.18, which writes generation 4."""
    require("trixie")
    return Tool((*_APART, str(TRIXIE / "run"), "skopeo", "--insecure-policy"))


def podman(folder: Path) -> Tool:
    """The podman of this Debian (4.3), its storage in `folder`; it loads, pulls and lists."""
    require("podman")
    return _podman((), folder, driver="vfs")


def podman_new(folder: Path) -> Tool:
    """The podman of trixie, 5.4, which pulls partially: as root, where overlay can be mounted."""
    require("trixie")
    return _podman((str(TRIXIE / "run"),), folder, driver="overlay")


def _podman(prefix: tuple[str, ...], folder: Path, driver: str) -> Tool:
    folder.mkdir(parents=True, exist_ok=True)
    conf = folder / "storage.conf"
    conf.write_text(
        f'[storage]\ndriver = "{driver}"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n'
        '[storage.options]\npull_options = {enable_partial_images = "true"}\n'
    )
    argv = (
        *_APART,
        *prefix,
        "podman",
        "--tmpdir",
        f"{folder}/tmp",
        "--cgroup-manager",
        "cgroupfs",
        "--events-backend",
        "none",
    )
    return Tool(
        argv, {"CONTAINERS_STORAGE_CONF": str(conf), "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}
    )


@dataclass(frozen=True, slots=True)
class Hit:
    """One request as the server saw it; `sent`: body bytes. Only nginx logs ranges."""

    method: str
    path: str
    status: int
    sent: int
    range: str | None = None
    authorization: str | None = None

    @property
    def is_blob(self) -> bool:
        return "/blobs/" in self.path and self.method == "GET"


@dataclass(frozen=True, slots=True)
class Server:
    """A peer that answers on loopback and writes down what it answered."""

    host: str  # address:port
    log: Path
    read_line: Callable[[str], Hit | None]
    ca: Path | None = None  # set when it speaks TLS
    _marks: Iterator[int] = field(default_factory=itertools.count, repr=False)

    @property
    def url(self) -> str:
        return f"{'https' if self.ca else 'http'}://{self.host}"

    def hits(self) -> list[Hit]:
        """All requests answered until now. Waits until a request of our own is in the log."""
        mark = f"/mark-{next(self._marks)}-of-{os.getpid()}"
        self._ask(mark)
        found = wait_for(lambda: self._read(until=mark), f"{mark} in {self.log}")
        return [hit for hit in found if not hit.path.startswith("/mark-")]

    def _read(self, until: str) -> list[Hit]:
        """Empty while `until` is missing."""
        # the last one may be half written
        *lines, _ = self.log.read_text(errors="replace").split("\n")
        found = [hit for line in lines if (hit := self.read_line(line))]
        return found if any(hit.path == until for hit in found) else []

    @contextmanager
    def watched(self) -> Iterator[list[Hit]]:
        """A list that holds, after the block, the requests answered within it."""
        before = len(self.hits())
        seen: list[Hit] = []
        yield seen
        seen += self.hits()[before:]

    def _ask(self, path: str) -> None:
        trust = ssl.create_default_context(cafile=self.ca) if self.ca else None
        try:
            urllib.request.urlopen(self.url + path, context=trust, timeout=10).close()
        except urllib.error.HTTPError as error:
            error.close()  # 401 and 404 are logged as well


@contextmanager
def docker_registry(
    folder: Path,
    *,
    storage: Path | None = None,
    auth: bool = False,
    tls: bool = False,
    mutual: bool = False,
) -> Iterator[Server]:
    """Debian's docker-registry over `storage`, which may be shared; with tls, `ca` vouches.

    `mutual` asks clients for a certificate, such as `client.cert` with `client.key` beside `ca`.
    """
    require("docker-registry")
    folder.mkdir(parents=True, exist_ok=True)
    http: dict[str, object] = {
        "addr": "127.0.0.1:0",
        "secret": "shared by all, so that they can share a storage",
    }
    conf: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "info"},
        "storage": {
            "filesystem": {"rootdirectory": str(storage or folder / "storage")},
            "delete": {"enabled": True},
        },
        "http": http,
    }
    if auth:
        (folder / "htpasswd").write_text(f"{USER}:{_BCRYPT}\n")
        conf["auth"] = {"htpasswd": {"realm": "zpull", "path": str(folder / "htpasswd")}}
    if tls:
        certificates(folder)
        known = {"clientcas": [str(folder / "ca.pem")]} if mutual else {}
        http["tls"] = {
            "certificate": str(folder / "server.pem"),
            "key": str(folder / "server.key"),
            **known,
        }
    config, access, chatter = folder / "config.json", folder / "access.log", folder / "chatter.log"
    config.write_text(json.dumps(conf))  # JSON is YAML
    argv = ["docker-registry", "serve", str(config)]
    with access.open("w") as stdout, chatter.open("w") as stderr, running(argv, stdout, stderr):
        listening = wait_for(lambda: _LISTENING.search(chatter.read_text()), f"a port in {chatter}")
        yield Server(listening[1], access, _combined, folder / "ca.pem" if tls else None)


@contextmanager
def nginx(
    folder: Path, *, upstream: str | None = None, root: Path | None = None, rules: str = ""
) -> Iterator[Server]:
    """An nginx before the URL `upstream` or over files in `root`; `rules` join its location.

    It counts best: its one worker writes a request down before it looks at the next one.
    """
    require("nginx")
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "access.log"
    log.touch()
    where = f"proxy_pass {upstream};" if upstream else f"root {root};"
    with (
        socket.create_server(("127.0.0.1", 0), backlog=512) as listener,
        (folder / "error.log").open("w") as errors,
    ):
        port = listener.getsockname()[1]
        (folder / "nginx.conf").write_text(
            _NGINX.format(folder=folder, port=port, where=where, rules=rules)
        )
        # nginx inherits the open socket: nobody else can take the port, and who asks early waits
        # instead of failing.
        inherited = {"NGINX": f"{listener.fileno()};"}
        argv = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        with running(argv, errors, errors, env=inherited, pass_fds=[listener.fileno()]):
            listener.close()
            yield Server(f"127.0.0.1:{port}", log, _json_line)


_NGINX = """
daemon off; worker_processes 1; user root; pid {folder}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  log_format counted escape=json '{{"request":"$request","status":$status,"sent":$body_bytes_sent,'
                                 '"range":"$http_range","authorization":"$http_authorization"}}';
  access_log {folder}/access.log counted;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_max_body_size 0; large_client_header_buffers 8 32k; sendfile on; keepalive_requests 100000;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      {where} {rules}
      proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header Connection "";
      proxy_request_buffering off; proxy_max_temp_file_size 0;
    }}
  }}
}}
"""


def wait_for(found: Callable[[], T | None], what: str, *, seconds: float = 20) -> T:
    """The first true answer. Looks every 5 ms, as another program's start cannot be hurried."""
    end = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.005)
    return answer


@contextmanager
def running(
    argv: list[str],
    stdout: IO[str],
    stderr: IO[str],
    env: Mapping[str, str] | None = None,
    pass_fds: list[int] | None = None,
) -> Iterator[None]:
    """A child that is ended with the block, and awaited."""
    merged = {**environment(), **(env or {})}
    with subprocess.Popen(
        argv, stdout=stdout, stderr=stderr, env=merged, pass_fds=pass_fds or []
    ) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=20)


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), SYSTEM_PATH])


def environment() -> dict[str, str]:
    """The environment without what leads away from loopback, with Debian's server folders."""
    dropped = {"http_proxy", "https_proxy", "all_proxy", "registry_auth_file"}
    return {key: value for key, value in os.environ.items() if key.lower() not in dropped} | {
        "PATH": _path()
    }


def certificates(folder: Path) -> None:
    """Make ca.pem, server.pem and .key for 127.0.0.1 and registry.test, client.cert and .key."""
    require("openssl")
    openssl = Tool(
        (
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        )
    )
    openssl(
        "-subj",
        "/CN=zpull test CA",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",  # Python 3.13 insists on it
        "-keyout",
        folder / "ca.key",
        "-out",
        folder / "ca.pem",
    )
    leaf = (
        "-addext",
        "subjectAltName=IP:127.0.0.1,DNS:registry.test",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    )
    signer = ("-CA", folder / "ca.pem", "-CAkey", folder / "ca.key")
    openssl(
        "-subj",
        "/CN=127.0.0.1",
        *leaf,
        *signer,
        "-keyout",
        folder / "server.key",
        "-out",
        folder / "server.pem",
    )
    openssl(
        "-subj",
        "/CN=client",
        *leaf[2:],
        *signer,
        "-keyout",
        folder / "client.key",
        "-out",
        folder / "client.cert",
    )


_LISTENING = re.compile(r"listening on (127\.0\.0\.1:\d+)")
_COMBINED = re.compile(r'\S+ \S+ \S+ \[[^]]*\] "(\S+) (\S+) [^"]*" (\d+) (\d+) ')


def _combined(line: str) -> Hit | None:
    if (found := _COMBINED.match(line)) is None:
        return None
    method, path, status, sent = found.groups()
    return Hit(
        method, path, int(status), 0 if method == "HEAD" else int(sent)
    )  # it counts bodies that HEAD never sends


def _json_line(line: str) -> Hit | None:
    row = json.loads(line)
    if (found := re.fullmatch(r"([A-Z]+) (\S+) HTTP/\S+", row["request"])) is None:
        return None  # no request but somebody's attempt to speak TLS
    method, path = found.groups()
    return Hit(
        method, path, row["status"], row["sent"], row["range"] or None, row["authorization"] or None
    )
