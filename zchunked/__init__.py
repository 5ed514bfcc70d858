"""zpull: the OCI client that downloads every needed byte once, and proves every byte it keeps.

    import zchunked
    result = zchunked.pull("registry.example/app:v2", to="oci:./app")
    print(result.manifest_digest, result.receipt.bytes.fetched)

`docs/library.md` has longer programs. Names are loaded when they are first used.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "pull": "api",
    "plan": "api",
    "config_for": "serve.config_for",
    "write_file": "operations.destinations.outputs",
    "writes_to_stdout": "operations.destinations.outputs",
    "Client": "client",
    "Options": "options",
    "Connection": "options",
    "ServeSettings": "options",
    "Patience": "options",
    "StallLimits": "options",
    "GapOptions": "options",
    "GcOptions": "options",
    "PullResult": "results",
    "Plan": "results",
    "ZPullError": "errors",
}
_MODULES = ("errors", "events")

__all__ = [*_WHERE, *_MODULES]  # noqa: PLE0604 - the stub beside says the same to type checkers


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name in _WHERE:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `zchunked.pull` the function: importing the folder of that name would rebind it."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _WHERE and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
