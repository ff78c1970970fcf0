"""What every image model has in common: the call, its checks, and the way in and out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from liquid_ode.models.embedding import Conditioning


class Denoiser(nn.Module):
    """An image model called as ``model(x, t, class_labels=None)``.

    A subclass fills in :meth:`features`, from feature maps to feature maps.

    Args:
        channels: width of the feature maps.
        conditioning: width of the conditioning vector.
        num_classes: number of classes; None for an unconditional model.
    """

    def __init__(self, *, channels: int, conditioning: int, num_classes: int | None) -> None:
        super().__init__()
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes must be at least 1 or None, not {num_classes}")
        self.channels = channels
        self.num_classes = num_classes
        self.conditioning = Conditioning(128, conditioning, num_classes)
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.norm_out = nn.GroupNorm(8, channels)
        self.head = nn.Conv2d(channels, 3, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]  # Conv2d has a bias by default

    def features(self, x: Tensor, condition: Tensor) -> Tensor:
        """From ``(B, channels, H, W)`` to the same, given the condition ``(B, conditioning)``."""
        raise NotImplementedError

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The model's output for noisy images.

        Args:
            x: images ``(B, 3, H, W)``.
            t: time steps ``(B,)``, whole or fractional.
            class_labels: ``(B,)`` whole numbers in 0..num_classes, of which the last stands for
                "no class"; None for "no class" throughout.

        Returns:
            ``(B, 3, H, W)``.

        Raises:
            ValueError: where a shape does not fit, or labels go to an unconditional model.
        """
        self._check(x, t, class_labels)
        condition = self.conditioning(t, class_labels)
        h = self.features(self.stem(x), condition)
        return self.head(nn.functional.silu(self.norm_out(h)))

    def _check(self, x: Tensor, t: Tensor, class_labels: Tensor | None) -> None:
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"x must have shape (B, 3, H, W), not {tuple(x.shape)}")
        if t.shape != x.shape[:1]:
            raise ValueError(f"t must have shape ({len(x)},), not {tuple(t.shape)}")
        if class_labels is None:
            return
        if self.num_classes is None:
            raise ValueError(
                "this model is unconditional and takes no class_labels: "
                "create it with num_classes=..."
            )
        if class_labels.shape != t.shape or class_labels.dtype != torch.long:
            raise ValueError(
                f"class_labels must be {tuple(t.shape)} torch.long, "
                f"not {tuple(class_labels.shape)} {class_labels.dtype}"
            )
