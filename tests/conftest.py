"""Effort of property tests: `dev`, `ci` with the same examples every time, `fuzz` for hours."""

import os
import signal

from hypothesis import HealthCheck, settings

for number in (signal.SIGINT, signal.SIGHUP):
    # nohup and background jobs ignore these, and whatever a test starts would inherit that, and not
    # hear its test.
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )

settings.register_profile(
    "dev", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "ci", settings.get_profile("dev"), max_examples=150, derandomize=True, print_blob=True
)
settings.register_profile("fuzz", settings.get_profile("dev"), max_examples=20_000)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
