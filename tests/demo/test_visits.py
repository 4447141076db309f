"""Visits stay apart, are not too many, and end in time."""

import time

import numpy as np

from sanet.demo.visit import Visit
from sanet.demo.visits import Visits


def visit(name):
    return Visit(np.zeros((4, 4, 3), np.uint8), name)


def test_each_visitor_has_their_own_and_the_newest():
    visits, mine, yours, newer = Visits(5, 60), visit("mine"), visit("yours"), visit("newer")
    visits.put("a", mine)
    visits.put("b", yours)
    assert (visits.get("a"), visits.get("b"), visits.get("c")) == (mine, yours, None)
    visits.put("a", newer)
    assert visits.get("a") is newer
    visits.close("a")
    visits.close("nobody")
    assert (visits.get("a"), visits.get("b")) == (None, yours)


def test_the_one_whose_last_step_is_longest_ago_makes_room():
    visits = Visits(2, 60)
    for key in "ab":
        visits.put(key, visit(key))
    visits.get("a")
    visits.put("c", visit("c"))
    assert [visits.get(key) is not None for key in "abc"] == [True, False, True]


def test_a_step_keeps_a_visit_and_time_ends_it():
    visits = Visits(5, 0.4)
    for key in "ab":
        visits.put(key, visit(key))
    for _ in range(3):
        time.sleep(0.2)
        assert visits.get("a")
    visits.purge()
    assert len(visits) == 1
    time.sleep(0.6)
    assert visits.get("a") is None
