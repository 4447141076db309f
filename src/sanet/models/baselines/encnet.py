"""EncNet: what an image shows, encoded by learnt codewords, re-weights the channels of its features.

Source: Zhang et al., "Context Encoding for Semantic Segmentation", CVPR 2018 (arXiv 1803.08904), section 3; the
encoding layer is that of Zhang, Xue and Dana, "Deep TEN: Texture Encoding Network", CVPR 2017 (arXiv 1612.02844).
Where the text is silent, or the authors' published networks differ from it, the docstrings say what is done here.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanet.models.backbones import Level
from sanet.models.norms import conv_norm_relu
from sanet.models.sanet import HeadOutput


class Encoding(nn.Module):
    """Residuals of all pixels from n codewords, each pixel shared out among them, section 3 ("Encoding Layer").

    e_k = sum_i softmax_k(-s_k |x_i - d_k|^2) (x_i - d_k), equation (1): a sum over the pixels, so it grows with the
    image.

    Args:
        channels: C.
        codewords: n.

    Attributes:
        codewords: (n, C), d_k.
        smoothing: (n,), s_k. Both start as in Deep TEN's published code; nothing keeps s_k positive there either.
    """

    def __init__(self, channels: int, codewords: int) -> None:
        super().__init__()
        bound = (channels * codewords) ** -0.5
        self.codewords = nn.Parameter(torch.empty(codewords, channels).uniform_(-bound, bound))
        self.smoothing = nn.Parameter(torch.empty(codewords).uniform_(0, 1))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, n, C), in the precision of the parameters.

        With the square expanded, |x|^2 - 2 d x + |d|^2, nothing is larger than the features. A difference of large
        numbers in an exponent needs more digits than autocast leaves it. (The "meta" device knows no autocast.)
        """
        device = features.device.type
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            pixels = features.flatten(2).to(self.codewords.dtype)  # (B, C, N)
            # Not matmul: it folds the batch in some cases only, so an exported graph would refuse the others.
            products = F.conv1d(pixels, -2 * self.codewords[..., None], self.codewords.square().sum(1))
            distances = pixels.square().sum(1, keepdim=True) + products  # (B, n, N)
            shares = (-self.smoothing[:, None] * distances).softmax(1)
            return torch.bmm(shares, pixels.transpose(1, 2)) - shares.sum(2, keepdim=True) * self.codewords


class EncNetHead(nn.Module):
    """EncNet on the last stage: figure 2, section 3, sizes of the authors' published networks.

    The encoded semantics e are the mean over the codewords of phi(e_k), phi being batch norm and ReLU: the paper
    writes their sum, the authors' code takes the mean. It also gives ReLU(X + gamma X) where section 3 has gamma X,
    gamma = sigmoid(W e); as X is not negative, that ReLU changes nothing and is left out. So is what they add on
    stage 3: the paper a second context encoding module for its SE-loss alone, the code an auxiliary FCN.

    Args:
        levels: of the backbone.
        num_classes: K.
        hidden: channels of the features that are encoded and re-weighted (authors: 512).
        codewords: n (paper: 32).
    """

    def __init__(self, levels: Sequence[Level], num_classes: int, hidden: int = 512, codewords: int = 32) -> None:
        super().__init__()
        self.squeeze = conv_norm_relu(levels[-1].channels, hidden, 3)
        self.encode = nn.Sequential(
            *conv_norm_relu(hidden, hidden, 1),
            Encoding(hidden, codewords),
            nn.BatchNorm1d(codewords),
            nn.ReLU(inplace=True),
        )
        self.weigh = nn.Sequential(nn.Linear(hidden, hidden), nn.Sigmoid())
        self.category = nn.Linear(hidden, num_classes)
        self.classifier = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(hidden, num_classes, 1))

    def forward(self, features: list[Tensor]) -> HeadOutput:
        """Maps (B, C_i, h_i, w_i) -> predictions; ``category`` is what the SE-loss of section 3 supervises."""
        maps = self.squeeze(features[-1])
        semantics = self.encode(maps).mean(1)  # (B, hidden)
        weights = self.weigh(semantics)[:, :, None, None]
        mask = self.classifier(torch.addcmul(maps, maps, weights))
        return HeadOutput(mask, mask, category=self.category(semantics))
