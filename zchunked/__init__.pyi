from zchunked import errors as errors
from zchunked import events as events
from zchunked.calls import plan as plan
from zchunked.calls import pull as pull
from zchunked.client import Client as Client
from zchunked.errors import ZPullError as ZPullError
from zchunked.options import Connection as Connection
from zchunked.options import GapOptions as GapOptions
from zchunked.options import Options as Options
from zchunked.options import Patience as Patience
from zchunked.options import StallLimits as StallLimits
from zchunked.results import Plan as Plan
from zchunked.results import PullResult as PullResult

__version__: str
__all__ = [
    "Client",
    "Connection",
    "GapOptions",
    "Options",
    "Patience",
    "Plan",
    "PullResult",
    "StallLimits",
    "ZPullError",
    "errors",
    "events",
    "plan",
    "pull",
]
