"""The network whose features FD-cnn and KID are measured in: a small classifier of CIFAR-10."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MEAN = (0.4914, 0.4822, 0.4465)  # of CIFAR-10's training images in [0, 1], by channel
STD = (0.2470, 0.2435, 0.2616)
WIDTHS = (48, 96, 192)


class Classifier(nn.Module):
    """A convolutional network of 0.66M parameters: images in [-1, 1] to the logits of ten classes.

    A frozen layer of whitening filters, with both signs, at full resolution; then three levels at
    a half, a quarter and an eighth of it, each a convolution and a residual one; the mean over
    pixels; a linear map. A residual network after Page, *How to train your ResNet* (2018), with the
    whitening layer of Jordan, *94% on CIFAR-10 in 3.29 seconds* (2024, section 3.1).

    Args:
        widths: channels of the three levels; the last is the number of features.
        classes: number of classes.
        filters: whitening filters, half as many channels as the first layer gives.
    """

    def __init__(
        self, widths: Sequence[int] = WIDTHS, *, classes: int = 10, filters: int = 16
    ) -> None:
        super().__init__()
        first, second, third = widths
        self.stem = nn.Conv2d(3, 2 * filters, 3, padding=1, bias=False)
        self.stem.weight.requires_grad_(False)
        self.levels = nn.Sequential(
            ConvNorm(2 * filters, first, stride=2),
            Residual(first),
            ConvNorm(first, second, pool=True),
            Residual(second),
            ConvNorm(second, third, pool=True),
            Residual(third),
        )
        self.head = nn.Linear(third, classes)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    @property
    def num_features(self) -> int:
        """Features of an image: the channels of the last level."""
        return self.head.in_features

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of images ``(N, 3, H, W)`` in [-1, 1]."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def features(self, images: Tensor) -> Tensor:
        """What the last layer sees: ``(N, num_features)``; images as in :meth:`forward`."""
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        x = ((images + 1) / 2 - self.mean) / self.std
        x = self.levels(F.relu(self.stem(x)))  # (N, num_features, H/8, W/8)
        return x.mean((2, 3))

    @torch.no_grad()
    def whiten(self, images: Tensor, epsilon: float = 5e-4) -> None:
        """Set the first layer: the principal components of 3×3 patches, scaled to unit variance.

        Args:
            images: ``(N, 3, H, W)`` in [-1, 1].
            epsilon: added to each component's variance.
        """
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        x = ((images + 1) / 2 - self.mean) / self.std
        patches = F.unfold(x, 3).transpose(1, 2).flatten(0, 1).double()  # (patches, 27)
        variances, components = torch.linalg.eigh(patches.T.cov())  # ascending
        filters = self.stem.out_channels // 2
        scaled = components / (variances + epsilon).sqrt()  # (27, 27), columns
        kept = scaled[:, -filters:].T.reshape(filters, 3, 3, 3)
        self.stem.weight.copy_(torch.cat([kept, -kept]))


class ConvNorm(nn.Module):
    """A 3×3 convolution, halved by its stride or by pooling; batch normalisation; ReLU."""

    def __init__(self, ins: int, outs: int, *, stride: int = 1, pool: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(ins, outs, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outs)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.pool:
            x = F.max_pool2d(x, 2)
        return F.relu(self.norm(x))


class Residual(nn.Module):
    """x + ReLU(norm(conv(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = ConvNorm(width, width)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.inner(x)
        return x + change
