"""DANet: attention between all positions, and between all channels, of the last feature stage.

Source: Fu et al., "Dual Attention Network for Scene Segmentation", CVPR 2019 (arXiv 1809.02983), section 3.
Where the authors' published code differs from the text, the docstrings say what is done here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanet.models.backbones import Level
from sanet.models.norms import conv_norm_relu
from sanet.models.sanet import HeadOutput


class PositionAttention(nn.Module):
    """Every position gathers from all positions like it, section 3.2: s = softmax(B C), E = alpha s D + A.

    B, C and D (key, query and value) are 1x1 convolutions of A; the first two have an eighth of its channels.

    Args:
        channels: C.

    Attributes:
        scale: alpha, a number, zero at first.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 8)
        self.query = nn.Conv2d(channels, hidden, 1)
        # A bias here would add the same to all that one softmax compares: no effect and no gradient.
        self.key = nn.Conv2d(channels, hidden, 1, bias=False)
        self.value = nn.Conv2d(channels, channels, 1)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """Equations (1) and (2): (B, C, h, w) -> (B, C, h, w)."""
        convolutions = (self.query, self.key, self.value)
        # (B, 1, N, channels); where there is a fused kernel, the N x N weights are never held.
        query, key, value = (convolve(features).flatten(2).transpose(1, 2)[:, None] for convolve in convolutions)
        gathered = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return features + self.scale * gathered[:, 0].transpose(1, 2).reshape_as(features)


class ChannelAttention(nn.Module):
    """Every channel gathers from all channels, section 3.3: x = softmax(-A A^T), E = beta x A + A.

    Equation (3) has softmax(A A^T). The authors' code subtracts these products from their maximum first, which turns
    their sign: channels gather from those unlike them. Asked about the printed sign, the authors say "we have tried
    [it], but the performance is not good" (github.com/CASIA-IVA-Lab/DANet, issue 48), so this is their code's.

    Attributes:
        scale: beta, a number, zero at first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """Equations (3), with the authors' sign, and (4): (B, C, h, w) -> (B, C, h, w)."""
        maps = features.flatten(2)[:, None]  # (B, 1, C, N)
        # Products over all positions are large; in half precision they would be wrong, and this keeps them in float32.
        gathered = F.scaled_dot_product_attention(-maps, maps, maps, scale=1.0)
        return features + self.scale * gathered.reshape_as(features)


class DANetHead(nn.Module):
    """DANet on the last stage: figure 2 and section 3.4, the sum of both branches classified.

    The authors' code also classifies each branch by itself and adds both losses. Section 3 has one prediction, and so
    has this.

    Args:
        levels: of the backbone.
        num_classes: K.
        reduction: the branches have C / reduction channels (authors: 4).
    """

    def __init__(self, levels: Sequence[Level], num_classes: int, reduction: int = 4) -> None:
        super().__init__()
        channels = levels[-1].channels
        hidden = max(1, channels // reduction)
        self.position = nn.Sequential(
            conv_norm_relu(channels, hidden, 3), PositionAttention(hidden), conv_norm_relu(hidden, hidden, 3)
        )
        self.channel = nn.Sequential(
            conv_norm_relu(channels, hidden, 3), ChannelAttention(), conv_norm_relu(hidden, hidden, 3)
        )
        self.classifier = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(hidden, num_classes, 1))

    def forward(self, features: list[Tensor]) -> HeadOutput:
        """Maps (B, C_i, h_i, w_i) -> predictions."""
        last = features[-1]
        mask = self.classifier(self.position(last) + self.channel(last))
        return HeadOutput(mask, mask)
