"""A real S3 server on loopback: OpenStack Swift's s3api, behind an nginx that counts."""

import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from getpass import getuser
from pathlib import Path

from tests.helpers.servers import peers

KEY, SECRET, REGION = "test:tester", "testing", "us-east-1"
_NODES = ("account", "container", "object")


@contextmanager
def swift(folder: Path) -> Iterator[peers.Server]:
    """The S3 endpoint, path style, for KEY and SECRET; `make_bucket` first."""
    peers.require("swift-proxy-server", "memcached", "nginx")
    for name in ("etc", "run", "disk/one"):
        folder.joinpath(name).mkdir(parents=True)
    etc = folder / "etc"
    proxy, cache, *ports = _free_ports(2 + len(_NODES))
    etc.joinpath("swift.conf").write_text(_SWIFT)
    etc.joinpath("proxy-server.conf").write_text(
        _common(etc, proxy) + _PROXY.format(cache=cache, region=REGION)
    )
    for node, port in zip(_NODES, ports, strict=True):
        etc.joinpath(f"{node}-server.conf").write_text(
            _common(etc, port) + _NODE.format(node=node, folder=folder)
        )
        for step in (
            ["create", "6", "1", "1"],
            ["add", f"r1z1-127.0.0.1:{port}/one", "1"],
            ["rebalance"],
        ):
            builder = ["swift-ring-builder", f"{node}.builder", *step]
            subprocess.run(
                builder, cwd=etc, env=peers.environment(), capture_output=True, check=True
            )
    with ExitStack() as stack:
        chatter = stack.enter_context((folder / "chatter.log").open("w"))
        memcached = ["memcached", "-u", getuser(), "-l", "127.0.0.1", "-p", str(cache)]
        servers = [
            [f"swift-{name}-server", str(etc / f"{name}-server.conf")]
            for name in (*_NODES, "proxy")
        ]
        for argv in (memcached, *servers):
            stack.enter_context(peers.running(argv, chatter, chatter))
        # the proxy last: a node that it finds dead is not asked again for a minute
        for port in (*ports, proxy):
            inside = f"http://127.0.0.1:{port}"
            peers.wait_for(
                partial(_answers, inside),
                f"an answer from {inside}; see {chatter.name}",
                seconds=60,
            )
        yield stack.enter_context(
            peers.nginx(folder / "front", upstream=f"http://127.0.0.1:{proxy}")
        )


def make_bucket(server: peers.Server, name: str) -> None:
    """By Swift's own interface, since S3 clients for objects have no word for it."""
    token = urllib.request.Request(
        f"{server.url}/auth/v1.0", headers={"X-Auth-User": KEY, "X-Auth-Key": SECRET}
    )
    with urllib.request.urlopen(token, timeout=30) as answer:
        headers = {"X-Auth-Token": answer.headers["X-Auth-Token"]}
    account = "AUTH_" + KEY.partition(":")[0]
    bucket = urllib.request.Request(
        f"{server.url}/v1/{account}/{name}", headers=headers, method="PUT"
    )
    urllib.request.urlopen(bucket, timeout=30).close()


def _free_ports(count: int) -> list[int]:
    """Free at the moment; the ring must name ports before anybody listens there."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(listener.getsockname()[1]) for listener in taken]


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        return False
    return True


def _common(etc: Path, port: int) -> str:
    return (
        f"[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {port}\nswift_dir = {etc}\nuser = "
        f"{getuser()}\nworkers = 0\n"
    )


_SWIFT = """
[swift-hash]
swift_hash_path_suffix = ebb
swift_hash_path_prefix = flood
[storage-policy:0]
name = one
default = yes
"""
_NODE = """
devices = {folder}/disk
mount_check = false
recon_cache_path = {folder}/run
[pipeline:main]
pipeline = {node}-server
[app:{node}-server]
use = egg:swift#{node}
"""
_PROXY = """
[pipeline:main]
pipeline = catch_errors cache s3api tempauth bulk slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{cache}
[filter:s3api]
use = egg:swift#s3api
location = {region}
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""
