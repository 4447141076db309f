"""A metric: how well the boundaries between classes are found (Csurka et al., BMVC 2013)."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric


class BoundaryF1(Metric):
    """F1 of boundary pixels, each found where the other's boundary is within some pixels; over all images together.

    Args:
        pixels: tolerance.
    """

    higher_is_better = True

    def __init__(self, pixels: int = 2) -> None:
        super().__init__()
        self.pixels = pixels
        self.add_state("counts", torch.zeros(4, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, mask: Tensor) -> None:
        """Count the boundary pixels of an image: labels (H, W) int64, predicted and true."""
        found, true = self.boundary(prediction), self.boundary(mask)
        pairs = [(found * self.near(true)).sum(), found.sum(), (true * self.near(found)).sum(), true.sum()]
        self.counts += torch.stack(pairs).to(self.counts)

    def compute(self) -> Tensor:
        """F1, from 0 to 1; 0 where no boundary is found."""
        right, found, hit, true = self.counts
        precision, recall = right / found.clamp(min=1), hit / true.clamp(min=1)
        return 2 * precision * recall / (precision + recall).clamp(min=1e-9)

    def boundary(self, labels: Tensor) -> Tensor:
        """1 where a pixel's label differs from that of the pixel below or to the right, (1, H, W)."""
        padded = F.pad(labels[None, None].float(), (0, 1, 0, 1), mode="replicate")[0]
        here = padded[:, :-1, :-1]
        return ((here != padded[:, 1:, :-1]) | (here != padded[:, :-1, 1:])).float()

    def near(self, boundary: Tensor) -> Tensor:
        """1 within ``pixels`` of a boundary."""
        return F.max_pool2d(boundary, 2 * self.pixels + 1, 1, self.pixels)
