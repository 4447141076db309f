"""What goes wrong in a run, told early: the signs of a collapse, and what most often leads to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from sanet.config import TrainConfig
from sanet.structures import LabelSet
from sanet.tables import percent
from sanet.training.metrics import Row

# Share of the pixels that is everything, share of a class that is rare, steps that are few.
EVERYWHERE, RARE, FEW = 0.995, 0.01, 500
# Validations after which a class should have been predicted, and the loss be lower.
PATIENCE = 3


class Alarm:
    """Notices a collapse after a validation; each kind is told once.

    Args:
        config: of the run.
        labels: the classes.
        pixels: (K,) int64, of each class in the training split.
    """

    def __init__(self, config: TrainConfig, labels: LabelSet, pixels: Tensor) -> None:
        self.config, self.labels = config, labels
        self.shares = pixels.numpy() / max(1, int(pixels.sum()))
        self.told: set[str] = set()

    def warnings(self, counted: Tensor, history: Sequence[Row], last: bool) -> list[str]:
        """What there is to say.

        Args:
            counted: (K, K) int64, the confusion matrix of the last validation.
            history: of the run, up to that validation.
            last: whether none is to follow.
        """
        predicted = counted.numpy().sum(axis=0) / max(1, int(counted.sum()))
        validations, found = sum("val/miou" in row for row in history), {}
        losses = [row["train/loss"] for row in history]
        names, top = self.labels.names, int(predicted.argmax())
        rising = len(losses) >= PATIENCE and losses[-1] >= losses[0]
        if predicted[top] >= EVERYWHERE and counted.numpy().sum(axis=1).max() < EVERYWHERE * int(counted.sum()):
            found["everywhere"] = f"{names[top]} is predicted for {percent(predicted[top])} % of the pixels", [top]
        elif validations >= PATIENCE or last:
            missing = np.flatnonzero((self.shares > 0) & (predicted == 0)).tolist()
            listed = [f"{names[index]} ({self.shares[index]:.2%} of train)" for index in missing]
            if missing:
                found["never"] = f"never predicted so far: {', '.join(listed)}", missing
        if rising:
            found["rising"] = f"the loss does not fall: {losses[0]:.3g} after an epoch, {losses[-1]:.3g} now", []
        new = {kind: said for kind, said in found.items() if kind not in self.told}
        self.told |= new.keys()
        step = int(history[-1]["step"])
        return [self._told(kind, text, classes, step, rising) for kind, (text, classes) in new.items()]

    def _told(self, kind: str, text: str, classes: list[int], step: int, rising: bool) -> str:
        """A warning with its causes, those that the numbers speak for first."""
        rate, share = self.config.optimizer.learning_rate, self.shares[classes].min() if classes else 1.0
        causes = [
            (share < RARE, "the class is too rare", "--loss.class_weighting sqrt, larger crops, more such images"),
            (rising, "the learning rate is too high", f"--optimizer.learning_rate {rate / 10:g}"),
            (
                kind == "everywhere" and share > 0.9,
                "masks are shifted, or almost empty",
                "--preview crops.png shows them as the network sees them",
            ),
            (step < FEW, f"too few steps so far ({step})", "more --epochs, or wait"),
        ]
        causes = [cause for cause in causes if kind == "never" or "rare" not in cause[1]]
        ranked = sorted(causes, key=lambda cause: not cause[0])
        lines = [f"  {number}. {cause}: {remedy}" for number, (_, cause, remedy) in enumerate(ranked, 1)]
        return "\n".join([f"warning: {text}. Causes, the likeliest first, and what to try:", *lines])
