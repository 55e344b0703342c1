"""Threads for what may hang: they work in order, and go."""

import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from threading import Event

import pytest

from appliance.threads import Threads

WAIT_S = 20.0
# One thread hangs, another's work is waited for: the end waits for neither.
HANGING = """
from threading import Event
from appliance.threads import Threads
threads = Threads("hanging", 2)
threads.submit(Event().wait)
print(threads.submit(int, "7").result(20), threads.finish(0.0))
"""


def test_work_is_done_in_the_order_that_it_came_by_so_many_at_a_time() -> None:
    threads, may_end, done = Threads("tests", 2), Event(), list[int]()
    hanging = threads.submit(may_end.wait, WAIT_S)
    for number in range(100):
        threads.submit(done.append, number)
    assert threads.submit(sum, done).result(WAIT_S) == sum(range(100))
    assert done == list(range(100))
    other = threads.submit(may_end.wait, WAIT_S)
    waiting = threads.submit(int)
    assert not threads.finish(0.01)
    assert not waiting.done()
    may_end.set()
    assert threads.finish(WAIT_S)
    assert (hanging.result(), other.result(), waiting.result()) == (True, True, 0)


def test_what_is_raised_is_for_whoever_waits_and_the_next_is_done() -> None:
    threads = Threads("tests")
    failing, following = threads.submit(int, "x"), threads.submit(int, "7")
    with pytest.raises(ValueError, match="invalid literal"):
        failing.result(WAIT_S)
    assert following.result(WAIT_S) == 7


def test_what_is_cancelled_before_it_began_is_left_out() -> None:
    threads, may_end, done = Threads("tests"), Event(), list[int]()
    threads.submit(may_end.wait, WAIT_S)
    cancelled = threads.submit(done.append, 1)
    assert cancelled.cancel()
    may_end.set()
    assert threads.finish(WAIT_S)
    assert done == []
    with pytest.raises(CancelledError):
        cancelled.result()


def test_threads_without_work_are_gone() -> None:
    name = "tests without work"
    threads = Threads(name, 3)
    for number in range(10):
        threads.submit(int, number)
    assert threads.finish(WAIT_S)
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(WAIT_S)
            assert not thread.is_alive()


def test_the_end_of_the_process_waits_for_none() -> None:
    argv = [sys.executable, "-c", HANGING]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert (done.stdout, done.stderr) == ("7 False\n", "")
