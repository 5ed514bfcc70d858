"""Configuration for engines to pull through the server: `--config-for`. Pure."""

from __future__ import annotations

from zchunked.errors import UsageError
from zchunked.oci.quoting import typed
from zchunked.options import ServeSettings
from zchunked.serve.settings import parse_listen

_HOSTS = ("docker.io", "ghcr.io", "quay.io", "gcr.io", "registry.k8s.io", "public.ecr.aws")


def config_for(engine: str, settings: ServeSettings | None = None) -> str:
    """What to write into which file, so that an engine pulls through `Client.serve`.

    Args:
        engine: `docker`, `containerd`, `podman`, `crio`, `k3s` or `buildkit`.
        settings: How the server is run. None: the defaults.

    Returns:
        The file's text; its first lines are comments that name the file, and what to do then.

    Raises:
        UsageError: There is no such engine, or the address cannot be understood.

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
    return _TEXTS[engine](address, f"{'https' if is_tls else 'http'}://{address}", is_tls)


def _docker(address: str, url: str, is_tls: bool) -> str:  # noqa: FBT001
    insecure = "" if is_tls else f',\n  "insecure-registries": ["{address}"]'
    return f"""\
# /etc/docker/daemon.json, then: systemctl reload docker
# docker asks mirrors for images of Docker Hub only. Any other image has its registry in the name:
#   docker pull {address}/quay.io/podman/hello
{{
  "registry-mirrors": ["{url}"]{insecure}
}}
"""


def _containerd(_address: str, url: str, _is_tls: bool) -> str:  # noqa: FBT001
    return f"""\
# /etc/containerd/certs.d/_default/hosts.toml: for every registry; no restart is needed.
# /etc/containerd/config.toml must name the folder (it does since containerd 2):
#   [plugins."io.containerd.grpc.v1.cri".registry]
#     config_path = "/etc/containerd/certs.d"
# ctr takes it from: ctr image pull --hosts-dir /etc/containerd/certs.d IMAGE
[host."{url}"]
  capabilities = ["pull", "resolve"]
"""


def _podman(address: str, _url: str, is_tls: bool) -> str:  # noqa: FBT001
    insecure = "" if is_tls else "\ninsecure = true"
    return "# /etc/containers/registries.conf.d/zpull.conf: no restart is needed.\n" + "".join(
        f"""
[[registry]]
prefix = "{host}"
location = "{host}"

[[registry.mirror]]
location = "{address}/{host}"{insecure}
"""
        for host in _HOSTS
    )


def _crio(address: str, url: str, is_tls: bool) -> str:  # noqa: FBT001
    return "# CRI-O reads the same files as podman. Then: systemctl reload crio\n" + _podman(
        address, url, is_tls
    )


def _k3s(_address: str, url: str, _is_tls: bool) -> str:  # noqa: FBT001
    return f"""\
# /etc/rancher/k3s/registries.yaml, then: systemctl restart k3s
mirrors:
  "*":
    endpoint:
      - "{url}"
"""


def _buildkit(address: str, _url: str, is_tls: bool) -> str:  # noqa: FBT001
    mirrors = "".join(
        f'\n[registry."{host}"]\n  mirrors = ["{address}/{host}"]\n' for host in _HOSTS
    )
    plain = "" if is_tls else f'\n[registry."{address}"]\n  http = true\n'
    return f"# /etc/buildkit/buildkitd.toml, then: systemctl restart buildkit\n{mirrors}{plain}"


_TEXTS = {
    "docker": _docker,
    "containerd": _containerd,
    "podman": _podman,
    "crio": _crio,
    "k3s": _k3s,
    "buildkit": _buildkit,
}
