from __future__ import annotations

import threading
import time

import pytest

from bnbenv.install.parallel import side_by_side


def test_answers_keep_the_order_of_what_was_asked() -> None:
    def late(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    assert side_by_side(late, [0.05, 0.0, 0.02]) == [0.05, 0.0, 0.02]
    assert side_by_side(late, []) == []


def test_no_more_are_done_at_once_than_is_allowed() -> None:
    together = threading.Barrier(2)
    assert side_by_side(lambda _: together.wait(5) >= 0, range(4), most=2) == [True] * 4
    with pytest.raises(threading.BrokenBarrierError):
        side_by_side(lambda _: threading.Barrier(2).wait(0.05), range(2), most=1)


def test_who_stops_the_command_does_not_wait_for_what_was_begun() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work(item: str) -> None:
        if item == "stopped":
            begun.wait(5)
            raise KeyboardInterrupt
        begun.set()
        go_on.wait(10)

    try:
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            side_by_side(work, ["stopped", "slow"])
        assert time.monotonic() - started < 5
    finally:
        go_on.set()


def test_a_failure_is_raised_when_what_was_begun_has_ended() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(item: str) -> None:
        if item == "fails":
            begun.wait(5)
            raise ValueError(item)
        begun.set()
        time.sleep(0.1)
        ended.set()

    with pytest.raises(ValueError, match="fails"):
        side_by_side(work, ["fails", "slow"])
    assert ended.is_set()
