"""Credential helpers: run `docker-credential-NAME` programs, which keep secrets; no shell."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from zchunked.errors import LocalError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,100}", re.ASCII)
_ANSWER_BYTES = 1 << 20
_NOT_FOUND = b"credentials not found"


class HelperError(LocalError):
    """A credential helper that is missing or fails: nothing is known of what it would have said."""


class HungHelperError(HelperError):
    """The helper did not answer in time."""


class Secret(msgspec.Struct):
    """The helper's answer, in its own spelling."""

    Username: str
    Secret: str

    def __repr__(self) -> str:
        return "Secret(…)"


_SECRET = msgspec.json.Decoder(Secret)


def ask_helper(
    name: str, server: str, where: str, environment: Mapping[str, str], seconds: float
) -> Secret | None:
    """Ask a helper; None when it knows of none. `where` names the file that names the helper.

    What the helper printed is never repeated: it may be the secret.
    """
    if not _NAME.fullmatch(name):
        raise HelperError(f"{where}: invalid name of a credential helper: {name!r:.100}")
    import subprocess  # noqa: PLC0415 - seldom needed

    program = f"docker-credential-{name}"
    try:
        done = subprocess.run(
            [program, "get"],
            input=server.encode(),
            capture_output=True,
            timeout=seconds,
            env=dict(environment),
            check=False,
        )
    except FileNotFoundError:
        raise HelperError(
            f"{where} names the credential helper {program}, which is not on the PATH"
        ) from None
    except subprocess.TimeoutExpired:
        raise HungHelperError(
            f"{program}, named in {where}, gave no answer within {seconds:g} s"
        ) from None
    except OSError as error:
        raise HelperError(
            f"{program}, named in {where}, cannot be run: {error.strerror}"
        ) from error
    if done.returncode:
        if _NOT_FOUND in done.stdout.lower() or _NOT_FOUND in done.stderr.lower():
            return None
        raise HelperError(
            f"{program}, named in {where}, failed with exit code {done.returncode} for "
            f"{server!r:.200}"
        )
    try:
        if len(done.stdout) <= _ANSWER_BYTES:
            return _SECRET.decode(done.stdout)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    raise HelperError(
        f"{program}, named in {where}, answered something else than a user name and a secret"
    )
