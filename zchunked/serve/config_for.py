"""Configuration for engines to pull through the server: `--config-for`. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from zchunked.errors import UsageError
from zchunked.oci.quoting import typed
from zchunked.options import ServeSettings
from zchunked.serve.api.names import parse_upstreams
from zchunked.serve.api.policy import DEFAULT_HOSTS
from zchunked.serve.settings import parse_listen


@dataclass(frozen=True, slots=True)
class _Server:
    """`mirrors`: registries, or prefixes of repositories, each with its name at the server."""

    address: str
    url: str
    is_tls: bool
    mirrors: list[tuple[str, str]]


def config_for(engine: str, settings: ServeSettings | None = None) -> str:
    """What to write into which file, so that an engine pulls through `Client.serve`.

    Args:
        engine: `docker`, `containerd`, `podman`, `crio`, `k3s` or `buildkit`.
        settings: How the server is run. None: the defaults.

    Returns:
        The file's text; its first lines are comments that name the file, and what to do then.

    Raises:
        UsageError: There is no such engine, or a setting cannot be understood.

    Example:
        >>> import zchunked
        >>> print(zchunked.config_for("k3s"))
        # /etc/rancher/k3s/registries.yaml, then: systemctl restart k3s
        mirrors:
          "*":
            endpoint:
              - "http://127.0.0.1:5055"
        <BLANKLINE>
    """
    settings = settings or ServeSettings()
    if engine not in _TEXTS:
        known = ", ".join(_TEXTS)
        raise UsageError(f"invalid engine: expected one of {known}, got {typed(engine, 80)}")
    host, port = parse_listen(settings.listen)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    is_tls = settings.tls_cert is not None
    url = f"{'https' if is_tls else 'http'}://{address}"
    return _TEXTS[engine](_Server(address, url, is_tls, _mirrors(settings)))


def _mirrors(settings: ServeSettings) -> list[tuple[str, str]]:
    """Those that the server asks; one with a port only where it has a name without."""
    allowed = [one.rstrip("/") for one in settings.allow or DEFAULT_HOSTS]
    names = [(one, one) for one in allowed if ":" not in one]
    return names + [(host, name) for name, host in parse_upstreams(settings.upstream).items()]


def _docker(server: _Server) -> str:
    insecure = "" if server.is_tls else f',\n  "insecure-registries": ["{server.address}"]'
    return f"""\
# /etc/docker/daemon.json, then: systemctl reload docker
# docker asks mirrors for images of Docker Hub only. Any other image has its registry in the name:
#   docker pull {server.address}/quay.io/podman/hello
{{
  "registry-mirrors": ["{server.url}"]{insecure}
}}
"""


def _containerd(server: _Server) -> str:
    return f"""\
# /etc/containerd/certs.d/_default/hosts.toml: for every registry; no restart is needed.
# /etc/containerd/config.toml must name the folder (it does since containerd 2):
#   [plugins."io.containerd.grpc.v1.cri".registry]
#     config_path = "/etc/containerd/certs.d"
# ctr takes it from: ctr image pull --hosts-dir /etc/containerd/certs.d IMAGE
[host."{server.url}"]
  capabilities = ["pull", "resolve"]
"""


def _podman(server: _Server) -> str:
    insecure = "" if server.is_tls else "\ninsecure = true"
    return "# /etc/containers/registries.conf.d/zpull.conf: no restart is needed.\n" + "".join(
        f"""
[[registry]]
prefix = "{prefix}"
location = "{prefix}"

[[registry.mirror]]
location = "{server.address}/{name}"{insecure}
"""
        for prefix, name in server.mirrors
    )


def _crio(server: _Server) -> str:
    return "# CRI-O reads the same files as podman. Then: systemctl reload crio\n" + _podman(server)


def _k3s(server: _Server) -> str:
    return f"""\
# /etc/rancher/k3s/registries.yaml, then: systemctl restart k3s
mirrors:
  "*":
    endpoint:
      - "{server.url}"
"""


def _buildkit(server: _Server) -> str:
    hosts = {prefix.partition("/")[0]: name.partition("/")[0] for prefix, name in server.mirrors}
    mirrors = "".join(
        f'\n[registry."{host}"]\n  mirrors = ["{server.address}/{name}"]\n'
        for host, name in hosts.items()
    )
    plain = "" if server.is_tls else f'\n[registry."{server.address}"]\n  http = true\n'
    return f"# /etc/buildkit/buildkitd.toml, then: systemctl restart buildkit\n{mirrors}{plain}"


_TEXTS = {
    "docker": _docker,
    "containerd": _containerd,
    "podman": _podman,
    "crio": _crio,
    "k3s": _k3s,
    "buildkit": _buildkit,
}
