"""The classifier of vision_block.py: its blocks, and time constants of liquid ones."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import solvers
from liquid_ode.cells import ConvLiquidCell


class LiquidBlock(nn.Module):
    """relu(x + norm(h)), h the state of a liquid cell under x."""

    def __init__(self, channels: int, solver: solvers.Solver) -> None:
        super().__init__()
        self.cell = ConvLiquidCell(channels, channels, solver=solver)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.cell(x)))


class ResidualBlock(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))), as torchvision's BasicBlock."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class Classifier(nn.Module):
    """A stem, three blocks of growing width, and a linear map of the mean over all pixels."""

    def __init__(self, block: Callable[[int], nn.Module], channels: int, classes: int) -> None:
        super().__init__()
        widths = (channels, 2 * channels, 4 * channels)
        self.stem = nn.Sequential(*convolution(3, channels, 1), nn.MaxPool2d(2))
        stages = [block(channels)]
        for before, width in pairwise(widths):
            stages += [convolution(before, width, 2), block(width)]
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, classes)`` of images ``(B, 3, 32, 32)`` in [-1, 1]."""
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


def convolution(before: int, after: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())


@torch.inference_mode()
def time_constants(model: nn.Module, images: Tensor) -> list[Tensor]:
    """τ(x) in each liquid block under these images: ``(B, channels, height, width)``."""
    found: list[Tensor] = []

    def keep(cell: ConvLiquidCell, given: tuple[Tensor, ...]) -> None:
        found.append(cell.time_constant(given[0]).cpu())

    cells = [module for module in model.modules() if isinstance(module, ConvLiquidCell)]
    hooks = [cell.register_forward_pre_hook(keep) for cell in cells]
    model.eval()
    model(images)
    for hook in hooks:
        hook.remove()
    return found
