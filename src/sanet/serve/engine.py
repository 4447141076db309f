"""Images that wait for a model, which labels those of one size together."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import torch

from sanet.inference.prediction import Prediction
from sanet.inference.predictor import Detail, Predictor


class Engine:
    """Labels images in a thread of its own: the one that waits longest, and with it those like it.

    It never waits for more to come: alone, an image is labelled at once, and what comes meanwhile is the next batch.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self._waiting: dict[Future[Prediction], tuple[torch.Tensor, Detail]] = {}
        self._lock, self._thread = Lock(), ThreadPoolExecutor(1)

    def submit(self, image: torch.Tensor, detail: Detail) -> Future[Prediction]:
        """What will be the prediction of an image, as ``Predictor.pixels`` gives it; it may be cancelled meanwhile."""
        done: Future[Prediction] = Future()
        with self._lock:
            self._waiting[done] = image, detail
        self._thread.submit(self._label)  # finds nothing to do where an earlier one took the image along
        return done

    def _label(self) -> None:
        with self._lock:
            kinds = {done: (image.shape, detail) for done, (image, detail) in self._waiting.items()}
            if not kinds:
                return
            first = next(iter(kinds.values()))
            alike = [done for done, kind in kinds.items() if kind == first][: self.predictor.batch]
            images = {done: self._waiting.pop(done)[0] for done in alike}
        images = {done: image for done, image in images.items() if done.set_running_or_notify_cancel()}
        try:
            # Of an iterator the first predictions come before the last are made.
            predictions = self.predictor(iter([*images.values()]), detail=first[1])
            for done, prediction in zip(images, predictions, strict=True):
                done.set_result(prediction)
        except Exception as error:
            for done in images:
                if not done.done():
                    done.set_exception(error)
