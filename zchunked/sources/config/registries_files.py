"""Find the files of registries.conf in the container tools' order: the main one, then drop-ins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from zchunked.errors import LocalError, UsageError
from zchunked.local.paths import is_folder
from zchunked.sources.config.registries import Registries, Registry, parse_registries
from zchunked.sources.config.small_files import contents_of

_SYSTEM = Path("/etc/containers")
_NAME, _DROP_INS = "registries.conf", "registries.conf.d"


def registries_from(
    environment: Mapping[str, str], *, given: Path | None = None, system: Path = _SYSTEM
) -> Registries:
    """`given`: the user's own choice. UsageError where it is missing, LocalError if broken.

    A file of the user's own stands for the system's, drop-ins included.
    """
    variable = environment.get("CONTAINERS_REGISTRIES_CONF")
    given = given or (Path(variable) if variable else None)
    home = environment.get("HOME")
    config = environment.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    own = Path(config, "containers") if config else None
    registries: dict[str, Registry] = {}
    if given is not None:
        data = contents_of(given, "registries.conf")
        if data is None:
            raise UsageError(f"{given}: there is no such registries.conf")
        registries |= parse_registries(data, str(given))
    elif own is not None and (data := contents_of(own / _NAME, "registries.conf")) is not None:
        registries |= parse_registries(data, str(own / _NAME))
        system = own
    elif (data := contents_of(system / _NAME, "registries.conf")) is not None:
        registries |= parse_registries(data, str(system / _NAME))
    for folder in dict.fromkeys([system, *([own] if own else [])]):
        for file in _drop_ins(folder / _DROP_INS):
            registries |= parse_registries(contents_of(file, "registries.conf") or b"", str(file))
    return registries


def _drop_ins(folder: Path) -> Iterator[Path]:
    """Drop-in files, in the order in which they take effect."""
    try:
        yield from sorted(
            file for file in folder.iterdir() if file.suffix == ".conf" and not is_folder(file)
        )
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise LocalError(f"cannot look into {folder}: {error.strerror}") from error
