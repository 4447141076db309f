"""Several images at once, on threads of a CPU."""

from __future__ import annotations

from threading import get_ident
from time import sleep

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

import sanet
from sanet.inference.beside import grouped, side_by_side
from sanet.models.networks import create_model

THREADS = 3


@pytest.fixture(autouse=True)
def several_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_whoever_is_first():
    def work(item):
        sleep(0.002 * (7 - item % 8))
        return item, get_ident(), torch.get_num_threads()

    found = [*side_by_side(work, iter(range(40)), THREADS, lambda item: True)]
    assert [item for item, *_ in found] == [*range(40)]
    assert len({thread for _, thread, _ in found}) == THREADS
    assert {threads for *_, threads in found} == {1}
    assert torch.get_num_threads() == THREADS


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_is_read_ahead_than_is_done_at_once(most):
    read = []
    results = side_by_side(str, (read.append(item) or item for item in range(20)), most, lambda item: True)
    for number, _ in enumerate(results, 1):
        assert len(read) <= min(20, number + most + 1)
    assert len(read) == 20


def test_what_does_not_fit_is_done_alone_with_all_threads():
    running = []

    def work(item):
        running.append(item)
        sleep(0.01)
        seen = (item, get_ident(), torch.get_num_threads(), len(running))
        running.remove(item)
        return seen

    found = [*side_by_side(work, iter(range(12)), THREADS, lambda item: item % 4)]
    assert [item for item, *_ in found] == [*range(12)]
    assert {(thread, threads, most) for item, thread, threads, most in found if item % 4 == 0} == {
        (get_ident(), THREADS, 1)
    }


def test_one_alone_gets_all_threads_and_none_is_nothing():
    assert [*side_by_side(lambda item: torch.get_num_threads(), iter([0]), 8, lambda item: True)] == [THREADS]
    assert [*side_by_side(str, iter(()), 8, lambda item: True)] == []


def test_an_error_comes_where_its_result_would():
    results = side_by_side(lambda item: 6 // item, iter([1, 2, 3, 0, 1]), 2, lambda item: True)
    assert [next(results) for _ in range(3)] == [6, 3, 2]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_groups_are_of_one_size_and_limited():
    sizes = [(4, 4)] * 5 + [(4, 8)] * 3 + [(4, 4), (90, 90), (90, 90)]
    groups = [*grouped((torch.zeros(3, *size) for size in sizes), batch=4, area=64)]
    assert [(len(held), *held[0].shape[1:]) for held in groups] == [
        (4, 4, 4), (1, 4, 4), (2, 4, 8), (1, 4, 8), (1, 4, 4), (1, 90, 90), (1, 90, 90)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("sanet", "test_resnet", labels=sanet.LabelSet(("a", "b", "c"))).eval()


@pytest.mark.parametrize("detail", ["mask", "confidence", "probabilities"])
def test_images_beside_each_other_are_labelled_as_alone(model, detail):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*rng.integers(40, 90, 2), 3), dtype=np.uint8) for _ in range(9)]
    predictor = sanet.Predictor(model, "cpu", sanet.InferenceConfig(window=64))  # some of them go through windows
    for together, image in zip(predictor(images, detail=detail), images, strict=True):
        alone = predictor(image, detail=detail)
        assert_array_equal(together.mask, alone.mask)
        np.testing.assert_allclose(together.features, alone.features, rtol=1e-4, atol=1e-5)
        if detail != "mask":
            np.testing.assert_allclose(together.confidence, alone.confidence, atol=1e-5)
