"""The time constants of a model's liquid cells, as they are while it denoises."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from liquid_ode.cells import LiquidCell
from liquid_ode.diffusion import GaussianDiffusion


@dataclass(frozen=True)
class TimeConstants:
    """τ over the image at several noise levels.

    Attributes:
        sigmas: the noise-to-signal ratios, ascending.
        noisy: the images that the model saw, the first of the batch: ``(L, C, H, W)``, unit scale.
        clean: what it made of them, x̂0, ``(L, C, H, W)``.
        maps: for each cell, by its name, τ of that image averaged over the state's channels,
            ``(L, h, w)``.
        means: for each cell, τ averaged over the whole batch, one for each level.
    """

    sigmas: tuple[float, ...]
    noisy: Tensor
    clean: Tensor
    maps: dict[str, Tensor]
    means: dict[str, tuple[float, ...]]


def cells_with_time_constants(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that have a time constant, by their names in the model."""
    return {
        name: module
        for name, module in model.named_modules()
        if callable(getattr(module, "time_constant", None))
    }


@torch.no_grad()
def time_constants(
    diffusion: GaussianDiffusion,
    images: Tensor,
    sigmas: Sequence[float],
    *,
    class_labels: Tensor | None = None,
    seed: int = 0,
) -> TimeConstants | None:
    """τ of every cell while the model denoises noisy versions of images; None without cells.

    A cell's ``time_constant`` is given the arguments that the model calls the cell with; a cell
    whose τ also depends on its state has none to show.

    Args:
        diffusion: the model.
        images: clean images ``(B, C, H, W)`` in [-1, 1].
        sigmas: noise-to-signal ratios to look at, ascending.
        class_labels: ``(B,)`` or None.
        seed: of the noise, which is the same at all levels.
    """
    cells = cells_with_time_constants(diffusion.model)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    noisy, clean = [], []
    seen: dict[str, list[Tensor]] = {name: [] for name in cells}
    for sigma in sigmas:
        x = (images + sigma * noise) / (1 + sigma**2) ** 0.5  # (B, C, H, W)
        level = torch.full((len(x),), sigma, device=x.device)
        with _Watch(cells, seen):
            estimate = diffusion.denoise_at_sigma(x, level, class_labels)
        noisy.append(x[0].cpu())
        clean.append(estimate.x0[0].cpu())
    found = {name: torch.stack(maps) for name, maps in seen.items() if len(maps) == len(sigmas)}
    if not found:
        return None
    return TimeConstants(
        tuple(sigmas),
        torch.stack(noisy),
        torch.stack(clean),
        {name: maps[:, 0] for name, maps in found.items()},
        {name: tuple(maps.mean((1, 2, 3)).tolist()) for name, maps in found.items()},
    )


class _Watch:
    """Within the block, takes down τ of each cell, once for each evaluation: ``(B, h, w)``."""

    def __init__(self, cells: dict[str, nn.Module], seen: dict[str, list[Tensor]]) -> None:
        self._cells, self._seen = cells, seen
        self._handles: list[Any] = []

    def __enter__(self) -> None:
        for name, cell in self._cells.items():
            self._handles.append(cell.register_forward_pre_hook(self._hook(name)))

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Any:
        called = False

        def hook(cell: Any, arguments: tuple[Any, ...]) -> None:
            nonlocal called
            wanted = _positional(cell.time_constant)
            if called or len(arguments) < wanted:
                return
            called = True
            tau = cell.time_constant(*arguments[:wanted])
            if tau.ndim == 4:
                over_channels = -1 if isinstance(cell, LiquidCell) else 1
                self._seen[name].append(tau.mean(over_channels).float().cpu())

        return hook


def _positional(function: Any) -> int:
    """How many arguments a function needs."""
    parameters = inspect.signature(function).parameters.values()
    return sum(parameter.default is parameter.empty for parameter in parameters)
