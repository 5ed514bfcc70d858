"""Open a bucket (S3, Google, Azure) by `obstore`: settings, endpoint, certificates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zchunked.errors import LocalError, UsageError
from zchunked.oci.reference import LayoutReference, is_loopback
from zchunked.sources.http.connections.tls import trust_from
from zchunked.sources.http.locations.urls import netloc
from zchunked.sources.network import Network
from zchunked.sources.objects.bucket_errors import Answered, understood

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_HINTS = {
    "s3": (
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a "
        "public bucket"
    ),
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "az": (
        "set AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY, or "
        "AZURE_SKIP_SIGNATURE=true if it is public"
    ),
}
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_SETTINGS = {
    "s3": (
        "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_TOKEN AWS_REGION "
        "AWS_DEFAULT_REGION AWS_SKIP_SIGNATURE AWS_VIRTUAL_HOSTED_STYLE_REQUEST "
        "AWS_UNSIGNED_PAYLOAD AWS_CHECKSUM_ALGORITHM AWS_CONDITIONAL_PUT AWS_REQUEST_PAYER "
        "AWS_METADATA_ENDPOINT AWS_WEB_IDENTITY_TOKEN_FILE AWS_ROLE_ARN AWS_ROLE_SESSION_NAME "
        "AWS_ENDPOINT_URL_STS AWS_CONTAINER_CREDENTIALS_RELATIVE_URI "
        "AWS_CONTAINER_CREDENTIALS_FULL_URI AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE "
        "AWS_SERVER_SIDE_ENCRYPTION AWS_SSE_KMS_KEY_ID AWS_SSE_BUCKET_KEY_ENABLED"
    ).split(),
    "gs": (
        "GOOGLE_SERVICE_ACCOUNT GOOGLE_SERVICE_ACCOUNT_PATH GOOGLE_SERVICE_ACCOUNT_KEY "
        "GOOGLE_APPLICATION_CREDENTIALS GOOGLE_SKIP_SIGNATURE GOOGLE_BEARER_TOKEN"
    ).split(),
    "az": (
        "AZURE_STORAGE_ACCOUNT_NAME AZURE_STORAGE_ACCOUNT_KEY AZURE_STORAGE_ACCESS_KEY "
        "AZURE_STORAGE_SAS_TOKEN AZURE_STORAGE_SAS_KEY AZURE_STORAGE_TOKEN "
        "AZURE_STORAGE_CLIENT_ID AZURE_CLIENT_ID AZURE_STORAGE_CLIENT_SECRET "
        "AZURE_CLIENT_SECRET AZURE_STORAGE_TENANT_ID AZURE_TENANT_ID AZURE_AUTHORITY_HOST "
        "AZURE_FEDERATED_TOKEN_FILE AZURE_MSI_ENDPOINT AZURE_USE_AZURE_CLI "
        "AZURE_STORAGE_USE_EMULATOR AZURE_SKIP_SIGNATURE"
    ).split(),
}
_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "SAS")


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket and a prefix in it; nothing was requested yet.

    `secrets`: what no message may repeat.
    """

    scheme: str
    name: str
    store: ObjectStore
    secrets: tuple[str, ...] = ()

    def answered(self, error: Exception, what: str) -> Answered:
        """What one of obstore's exceptions says."""
        return understood(error, what, secrets=self.secrets, hint=_HINTS.get(self.scheme, ""))


def connect(
    reference: LayoutReference, network: Network, client: Mapping[str, Any], *, retries: int
) -> Bucket:
    """Open a bucket without asking it.

    `client`: further options of obstore's client; `retries`: how many obstore makes by itself,
    within a minute. Raises UsageError for settings that cannot be meant.
    """
    try:
        from obstore import exceptions, store  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            f"{reference.name}: buckets need another package: pip install 'zpull[s3]'"
        ) from error
    environment = network.environment
    scheme, (bucket, _, prefix) = reference.scheme, reference.base.partition("/")
    config = {
        name.lower(): environment[name] for name in _SETTINGS[scheme] if environment.get(name)
    }
    secrets = tuple(
        value
        for name, value in environment.items()
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_"))
        and any(word in name for word in _SECRET_WORDS)
    )
    options: dict[str, Any] = {"connect_timeout": milliseconds(network.connect_seconds), **client}
    endpoint = next(
        (environment[name] for name in _ENDPOINTS[scheme] if environment.get(name)), None
    )
    if endpoint:
        config[_ENDPOINTS[scheme][-1].lower()] = endpoint.rstrip("/")
        if endpoint.lower().startswith("http://"):
            may_be_plain = (
                is_loopback(netloc(endpoint)) or network.plain_http or _is_on(environment, scheme)
            )
            if not may_be_plain:
                raise UsageError(
                    f"{reference.name} would be read unencrypted from {netloc(endpoint)}; allow "
                    "it with --plain-http"
                )
            options["allow_http"] = True
    options |= _trusted(network)
    shared: dict[str, Any] = {
        "prefix": prefix or None,
        "config": config,
        "client_options": options,
        "retry_config": {
            "max_retries": retries,
            "retry_timeout": timedelta(seconds=60 if retries else 0),
        },
    }
    kinds = {"s3": store.S3Store, "gs": store.GCSStore, "az": store.AzureStore}
    try:
        opened: ObjectStore = kinds[scheme](bucket, **shared)
    except (exceptions.BaseError, ValueError, OSError) as error:
        answered = understood(error, reference.name, secrets=secrets, hint=_HINTS[scheme])
        raise UsageError(f"{answered.error}; {_HINTS[scheme]}") from None
    return Bucket(scheme, reference.name, opened, secrets)


def _is_on(environment: Mapping[str, str], scheme: str) -> bool:
    return scheme == "s3" and environment.get("AWS_ALLOW_HTTP", "").lower() in (
        "1",
        "true",
        "yes",
        "on",
    )


def milliseconds(seconds: float) -> str:
    """A duration in obstore's form."""
    return f"{max(1, round(seconds * 1000))}ms"


def _trusted(network: Network) -> dict[str, Any]:
    """The same certificates as for registries, beside the system's; AWS has its own variable."""
    environment = network.environment
    trust = trust_from(environment, verify=network.tls_verify, cert_dir=network.cert_dir)
    if not trust.verify:
        return {"allow_invalid_certificates": True}
    own = environment.get("AWS_CA_BUNDLE")
    files = [Path(own)] if own else [trust.bundle] if trust.bundle else []
    try:
        if trust.cert_dir is not None:
            files += [file for file in sorted(trust.cert_dir.iterdir()) if file.suffix == ".crt"]
        data = b"\n".join([file.read_bytes() for file in files])
    except OSError as error:
        raise LocalError(
            f"cannot read the certificates of {error.filename}: {error.strerror}"
        ) from error
    return {"root_certificate": data} if data.strip() else {}
