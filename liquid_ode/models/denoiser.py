"""What every image model has in common: the call, its checks, and the way in and out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from liquid_ode.models.blocks import check_width, zeroed
from liquid_ode.models.embedding import Conditioning
from liquid_ode.models.liquid_part import LiquidPart


class Denoiser(nn.Module):
    """An image model called as ``model(x, t, class_labels=None)``.

    A subclass fills in :meth:`features`, from feature maps to feature maps.

    Args:
        channels: width of the feature maps.
        conditioning: width of the conditioning vector.
        num_classes: number of classes; None for an unconditional model.
        patch: side of the square of pixels whose channels are stacked at one place of the
            feature maps (pixel unshuffle); 1 for maps of the images' own size.
        image_channels: of an image: 1 for grey, 3 for colour, 4 with transparency.
    """

    def __init__(
        self,
        *,
        channels: int,
        conditioning: int,
        num_classes: int | None,
        patch: int = 1,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        check_width("channels", channels, multiple=8)  # GroupNorm(8)
        check_width("conditioning", conditioning)
        check_width("patch", patch)
        check_width("image_channels", image_channels)
        if channels % patch**2:
            raise ValueError(f"channels must be a multiple of patch^2 = {patch**2}, not {channels}")
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes must be at least 1 or None, not {num_classes}")
        self.channels = channels
        self.image_channels = image_channels
        self.num_classes = num_classes
        self.conditioning = Conditioning(128, conditioning, num_classes)
        self.patch = patch
        self.stem = nn.Conv2d(image_channels, channels // patch**2, 3, padding=1)
        self.norm_out = nn.GroupNorm(8, channels)
        self.head = zeroed(nn.Conv2d(channels // patch**2, image_channels, 3, padding=1))
        # What is mostly noise is best predicted by the image itself, scaled by the time step.
        self.skip = zeroed(nn.Linear(conditioning, image_channels))

    def __repr__(self) -> str:
        """One line: what it is and how large; ``named_modules`` has all that is inside."""
        count = sum(parameter.numel() for parameter in self.parameters())
        classes = "" if self.num_classes is None else f", num_classes={self.num_classes}"
        return f"{type(self).__name__}({count:,} parameters{classes})"

    @property
    def reduction(self) -> int:
        """Full images are so many times as large, a side, as those that the model works on now."""
        return 1

    def features(self, x: Tensor, condition: Tensor) -> Tensor:
        """From ``(B, channels, H/patch, W/patch)`` to the same, given ``(B, conditioning)``."""
        raise NotImplementedError

    def budgets(self) -> list[list[LiquidPart]]:
        """The liquid parts that share an entry of the option ``steps``; none without cells."""
        return []

    def stopped_early(self, steps: int | Sequence[int]) -> Denoiser:
        """The same model, whose cells stop before their unit of time is over.

        It shares every parameter and buffer, and its solvers take the same steps, but fewer: a
        cell with a budget of n steps that stops after k flows for k/n of its time (a solver
        driven by a tolerance, for as long). So it is a weaker model of the same kind, as guidance
        by a weaker model asks for (Karras et al. 2024, Guiding a diffusion model with a bad
        version of itself).

        Args:
            steps: after how many; one number for all cells, or one for each entry of the model's
                option ``steps``.

        Raises:
            ValueError: where the model has no cells, or a number is not in [1, its budget].
        """
        twin = copy.deepcopy(self, {id(x): x for x in (*self.parameters(), *self.buffers())})
        groups = twin.budgets()
        if not groups:
            raise ValueError(
                f"{type(self).__name__} has no liquid cells, so there is nothing in it to stop "
                "early: take a model with an option 'steps'"
            )
        numbers = [steps] * len(groups) if isinstance(steps, int) else list(steps)
        if len(numbers) != len(groups):
            raise ValueError(f"steps takes {len(groups)} numbers or one, not {list(numbers)}")
        for group, number in zip(groups, numbers, strict=True):
            for part in group:
                part.stop_after(number)
        return twin

    if TYPE_CHECKING:  # a module's own call is of Any

        def __call__(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor: ...

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The model's output for noisy images.

        Args:
            x: images ``(B, image_channels, H, W)``, of any size.
            t: time steps ``(B,)``, whole or fractional.
            class_labels: ``(B,)`` whole numbers in 0..num_classes, of which the last stands for
                "no class"; None for "no class" throughout.

        Returns:
            The shape of x.

        Raises:
            ValueError: where a shape does not fit, or labels go to an unconditional model.
        """
        self._check(x, t, class_labels)
        condition = self.conditioning(t, class_labels)
        return self.process(x, condition) + self.skip(F.silu(condition))[..., None, None] * x

    def process(self, x: Tensor, condition: Tensor) -> Tensor:
        """From images to images, given ``(B, conditioning)``: stem, :meth:`features`, head."""
        height, width = x.shape[-2:]
        padding = (-width % self.patch, -height % self.patch)
        if any(padding):
            x = F.pad(x, (0, padding[0], 0, padding[1]), mode="replicate")
        h = self.features(F.pixel_unshuffle(self.stem(x), self.patch), condition)
        out: Tensor = self.head(F.pixel_shuffle(F.silu(self.norm_out(h)), self.patch))
        return out[..., :height, :width]

    def _check(self, x: Tensor, t: Tensor, class_labels: Tensor | None) -> None:
        if x.ndim != 4 or x.shape[1] != self.image_channels:
            raise ValueError(
                f"x must have shape (B, {self.image_channels}, H, W), not {tuple(x.shape)}"
            )
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
