"""What every image model has in common: the call, its checks, and the way in and out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from liquid_ode.models.blocks import check_width
from liquid_ode.models.embedding import Conditioning


class Denoiser(nn.Module):
    """An image model called as ``model(x, t, class_labels=None)``.

    A subclass fills in :meth:`features`, from feature maps to feature maps.

    Args:
        channels: width of the feature maps.
        conditioning: width of the conditioning vector.
        num_classes: number of classes; None for an unconditional model.
        patch: side of the square of pixels whose channels are stacked at one place of the
            feature maps (pixel unshuffle); 1 for maps of the images' own size.
    """

    def __init__(
        self, *, channels: int, conditioning: int, num_classes: int | None, patch: int = 1
    ) -> None:
        super().__init__()
        check_width("channels", channels, multiple=8)  # GroupNorm(8)
        check_width("conditioning", conditioning)
        check_width("patch", patch)
        if channels % patch**2:
            raise ValueError(f"channels must be a multiple of patch^2 = {patch**2}, not {channels}")
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes must be at least 1 or None, not {num_classes}")
        self.channels = channels
        self.num_classes = num_classes
        self.conditioning = Conditioning(128, conditioning, num_classes)
        self.patch = patch
        self.stem = nn.Conv2d(3, channels // patch**2, 3, padding=1)
        self.norm_out = nn.GroupNorm(8, channels)
        self.head = nn.Conv2d(channels // patch**2, 3, 3, padding=1)
        # What is mostly noise is best predicted by the image itself, scaled by the time step.
        self.skip = nn.Linear(conditioning, 3)
        nn.init.zeros_(self.skip.weight)
        nn.init.zeros_(self.skip.bias)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]  # Conv2d has a bias by default

    def features(self, x: Tensor, condition: Tensor) -> Tensor:
        """From ``(B, channels, H/patch, W/patch)`` to the same, given ``(B, conditioning)``."""
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
        height, width = x.shape[-2:]
        padding = (-width % self.patch, -height % self.patch)
        if any(padding):
            x = F.pad(x, (0, padding[0], 0, padding[1]), mode="replicate")
        h = self.features(F.pixel_unshuffle(self.stem(x), self.patch), condition)
        out = self.head(F.pixel_shuffle(F.silu(self.norm_out(h)), self.patch))
        out = out + self.skip(F.silu(condition))[..., None, None] * x
        return out[..., :height, :width]

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
