"""A transform of a sample, and one of a batch."""

import torch

from sanet import Batch, Sample


class Stain:
    """Another strength of every colour channel, as between two laboratories.

    Args:
        strength: largest relative change.
    """

    def __init__(self, strength: float = 0.2) -> None:
        self.strength = strength

    def __call__(self, sample: Sample) -> Sample:
        """The sample with its image changed; what is drawn follows from torch's generator, which is seeded."""
        factors = 1 + self.strength * (2 * torch.rand(len(sample.image), 1, 1) - 1)
        image = (sample.image * factors).round().clamp(0, 255).to(sample.image.dtype)
        return sample._replace(image=image)


def half_mix(batch: Batch) -> Batch:
    """The right half of every image, and of its mask, from its neighbour in the batch."""
    half = batch.image.shape[-1] // 2
    image, mask = batch.image.clone(), batch.mask.clone()
    image[..., half:], mask[..., half:] = batch.image.roll(1, 0)[..., half:], batch.mask.roll(1, 0)[..., half:]
    return batch._replace(image=image, mask=mask)
