"""What pulls side by side share.

Connections, places on the line, and their order within a repository.
"""

from __future__ import annotations

import threading

from zchunked.sources.shared_link import IdleConnections, SharedLink


class Connection:
    is_closed = False

    def close(self) -> None:
        self.is_closed = True


def test_connections_are_found_by_what_they_are_good_for() -> None:
    idle, one, other = IdleConnections(), Connection(), Connection()
    idle.put("a", one)
    idle.put("a", other)
    assert idle.take("b") is None
    assert idle.take("a") is other
    idle.close()
    assert one.is_closed
    assert not other.is_closed
    idle.put("a", other)
    assert other.is_closed, "whoever comes back late is closed"


def test_those_that_download_divide_the_connections_among_them() -> None:
    link = SharedLink(8)
    shares = [link.join(name) for name in "abc"]
    assert link.share() == 8
    for link_share, share in zip(shares, (8, 4, 2), strict=True):
        link_share.set_busy(is_busy=True)
        assert link.share() == share
    shares[1].end()
    assert link.share() == 4
    shares[0].set_busy(is_busy=False)
    assert link.share() == 8


def test_nobody_is_left_without_a_connection() -> None:
    link = SharedLink(1)
    for name in "ab":
        link.join(name).set_busy(is_busy=True)
    assert link.share() == 1


def test_pulls_of_one_repository_follow_each_other() -> None:
    link = SharedLink(8)
    first, other, second, third = (link.join(name) for name in ("app", "db", "app", "app"))
    assert first.is_next(0)
    assert other.is_next(0)
    assert not second.is_next(0)
    threading.Timer(0, first.end).start()
    assert second.is_next(30), "woken at once"
    assert not third.is_next(0)
    second.end()
    assert third.is_next(0)
