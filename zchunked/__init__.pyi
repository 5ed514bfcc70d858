from zchunked import errors as errors
from zchunked import events as events
from zchunked.api import plan as plan
from zchunked.api import pull as pull
from zchunked.client import Client as Client
from zchunked.errors import ZPullError as ZPullError
from zchunked.operations.destinations.outputs import write_file as write_file
from zchunked.operations.destinations.outputs import writes_to_stdout as writes_to_stdout
from zchunked.options import Connection as Connection
from zchunked.options import GapOptions as GapOptions
from zchunked.options import GcOptions as GcOptions
from zchunked.options import Options as Options
from zchunked.options import Patience as Patience
from zchunked.options import ServeSettings as ServeSettings
from zchunked.options import StallLimits as StallLimits
from zchunked.results import Plan as Plan
from zchunked.results import PullResult as PullResult
from zchunked.serve.config_for import config_for as config_for

__version__: str
__all__ = [
    "Client",
    "Connection",
    "GapOptions",
    "GcOptions",
    "Options",
    "Patience",
    "Plan",
    "PullResult",
    "ServeSettings",
    "StallLimits",
    "ZPullError",
    "config_for",
    "errors",
    "events",
    "plan",
    "pull",
    "write_file",
    "writes_to_stdout",
]
