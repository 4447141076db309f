"""Images that wait together are labelled together, and each gets its own answer."""

from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from io import BytesIO
from threading import Event

import numpy as np
import pytest
from PIL import Image

from sanet.serve.engine import Engine


@pytest.fixture
def passes(predictor, monkeypatch):
    """How many images went through the network together, pass by pass."""
    sizes, labelled = [], predictor._labelled

    def counted(held, *rest, **settings):
        sizes.append(len(held))
        return labelled(held, *rest, **settings)

    monkeypatch.setattr(predictor, "_labelled", counted)
    return sizes


@contextmanager
def busy(engine):
    """Its thread does something else where this is open."""
    free = Event()
    engine._thread.submit(free.wait)
    try:
        yield
    finally:
        free.set()


def pixels_of(predictor, content):
    return predictor.pixels(Image.open(BytesIO(content)))


def test_those_of_one_size_are_labelled_together(predictor, images, passes):
    engine = Engine(predictor)
    with busy(engine):
        given = [engine.submit(pixels_of(predictor, content), "mask") for content, _ in images]
        late = engine.submit(pixels_of(predictor, images[0][0]), "confidence")
    for done, (_, mask) in zip([*given, late], [*images, images[0]], strict=True):
        np.testing.assert_array_equal(done.result(60).mask, mask)
    assert passes == [4, 4, 4, 1]  # three sizes, in the order in which they came; and another detail
    assert predictor.batch == 8


def test_no_batch_is_larger_than_the_predictors(predictor, images, passes):
    engine = Engine(predictor)
    with busy(engine):
        given = [engine.submit(pixels_of(predictor, images[0][0]), "mask") for _ in range(19)]
    wait(given, 60)
    assert passes == [8, 8, 3]


def test_many_threads_get_their_own(predictor, images):
    engine = Engine(predictor)

    def ask(number):
        content, mask = images[number % len(images)]
        return np.array_equal(engine.submit(pixels_of(predictor, content), "mask").result(60).mask, mask)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(200)))


def test_what_nobody_waits_for_is_not_labelled(predictor, images, passes):
    engine = Engine(predictor)
    with busy(engine):
        given = [engine.submit(pixels_of(predictor, images[0][0]), "mask") for _ in range(5)]
        assert all(done.cancel() for done in given[:4])
    np.testing.assert_array_equal(given[4].result(60).mask, images[0][1])
    assert passes == [1]


def test_an_error_is_that_of_its_batch_alone(predictor, images):
    engine = Engine(predictor)
    image = pixels_of(predictor, images[0][0])
    with busy(engine):
        wrong = [engine.submit(image[:2], "mask") for _ in range(2)]
        right = engine.submit(image, "mask")
    for done in wrong:
        with pytest.raises(ValueError, match="shape"):
            done.result(60)
    np.testing.assert_array_equal(right.result(60).mask, images[0][1])
