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
EVERYWHERE, RARE, FEW = 0.995, 0.05, 500
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
        matrix, names, found = counted.numpy(), self.labels.names, {}
        predicted, true = (matrix.sum(axis=axis) / max(1, matrix.sum()) for axis in (0, 1))
        losses = [row["train/loss"] for row in history]
        rising = len(losses) >= PATIENCE and losses[-1] >= losses[0]
        missing = np.flatnonzero((self.shares > 0) & (predicted <= 1 - EVERYWHERE)).tolist()
        never = [index for index in missing if predicted[index] == 0]
        top = int(predicted.argmax())
        if predicted[top] >= EVERYWHERE > true.max():
            found["everywhere"] = f"{names[top]} is predicted for {percent(predicted[top])} % of the pixels", missing
        elif never and (last or sum("val/miou" in row for row in history) >= PATIENCE):
            listed = [f"{names[index]} ({self.shares[index]:.1%} of train)" for index in never]
            found["never"] = f"never predicted so far: {', '.join(listed)}", never
        if rising:
            found["rising"] = f"the loss does not fall: {losses[0]:.3g} after an epoch, {losses[-1]:.3g} now", []
        new = {kind: said for kind, said in found.items() if kind not in self.told}
        self.told |= new.keys()
        return [self._told(text, classes, int(history[-1]["step"]), rising) for text, classes in new.values()]

    def _told(self, text: str, missing: list[int], step: int, rising: bool) -> str:
        """A warning with its causes, those that the numbers speak for first."""
        rate, least = self.config.optimizer.learning_rate, self.shares[missing].min() if missing else 1.0
        rare = self.labels.names[missing[int(self.shares[missing].argmin())]] if missing else ""
        longer = "more --epochs" if self.config.budget is None else "a longer --budget"
        causes = [
            (step < FEW, f"few steps so far ({step})", f"wait, or {longer}"),
            (rising, "the learning rate is too high", f"--optimizer.learning_rate {rate / 10:g}"),
        ]
        if least < RARE:
            stronger = {"sqrt": "--loss.class_weighting log", "log": "more images of it"}
            remedy = stronger.get(self.config.loss.class_weighting, "--loss.class_weighting sqrt")
            causes.append((True, f"{rare} is rare ({least:.1%} of train)", remedy))
        if missing:
            causes.append((False, "masks are shifted, or almost empty", "look at them: --preview crops.png"))
        ranked = sorted(causes, key=lambda cause: not cause[0])
        lines = [f"  {number}. {cause}: {remedy}" for number, (_, cause, remedy) in enumerate(ranked, 1)]
        return "\n".join([f"warning: {text}. Causes, the likeliest first, and what to try:", *lines])
