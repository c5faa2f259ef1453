"""Limits on time: what hangs is given up on."""

import threading

import pytest

from stvideo.data.video.watchdog import TimedOut, call_with_timeout


def test_results_and_errors_come_through():
    assert call_with_timeout(lambda: 3, 60.0) == 3
    with pytest.raises(KeyError, match="none"):
        call_with_timeout(lambda: {}["none"], 60.0)


def test_a_time_out_of_the_system_is_no_hang():
    def read():
        raise TimeoutError("the network file system does not answer")

    with pytest.raises(TimeoutError, match="does not answer"):
        call_with_timeout(read, 60.0)


def test_a_call_that_hangs_is_given_up_on():
    never = threading.Event()
    with pytest.raises(TimedOut):
        call_with_timeout(never.wait, 0.1)
    never.set()
