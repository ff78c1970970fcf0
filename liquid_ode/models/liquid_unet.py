"""A U-Net whose blocks are convolutional liquid cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from liquid_ode.cells import Wiring
from liquid_ode.models.blocks import numbers
from liquid_ode.models.conv_liquid import Context, ConvLiquidBlock, States
from liquid_ode.models.liquid_part import LiquidPart
from liquid_ode.models.unet import UShape
from solvers import Euler, Solver


class LiquidUNet(UShape):
    """A U-Net whose blocks are convolutional liquid cells, with dense 3x3 recurrent kernels.

    Each block lets a state flow for one unit of time under a drive made of its input, with time
    constants made of the input and the time step (:class:`ConvLiquidBlock` has the equations).
    All steps of a solver share one kernel, so that the number of steps, and the solver, are free
    when sampling too.

    Args:
        solver: drives every cell, with the budgets of ``steps``.
        num_classes: number of classes; None for an unconditional model.
        widths: channels at full, half, quarter, ... resolution.
        steps: budgets of solver steps at these resolutions; one number for all.
        blocks: at each resolution, on the way down and on the way up.
        attention: levels whose blocks are followed by self-attention, counted from 0, full
            resolution; a number alone for one.
        sparsity: share of the connections between a cell's channels that are left out, at random.
        random_steps: numbers of steps of which each pass of training draws one for all cells, so
            that one model serves them all; () trains with ``steps``.
        early_share: share of the passes of training whose cells stop early, after a number of
            steps drawn from 1 to one less than the budget, so that the early states make images
            too (see :meth:`stopped_early`).
        warm_share: share of the passes of training that start from the states in which a pass
            before it, without gradient, has ended, as sampling with :meth:`carrying_states` does.
        progressive: whether the model can :meth:`grow` from small images to large ones.
        conditioning: width of the conditioning vector.
        image_channels: of an image.

    Reference: Ronneberger et al. 2015 for the shape; Jabri et al. 2023, Scalable adaptive
    computation for iterative generation, section 2.3, for states carried between evaluations.
    """

    def __init__(
        self,
        *,
        solver: Solver = Euler(),
        num_classes: int | None = None,
        widths: Sequence[int] = (16, 32, 32),
        steps: int | Sequence[int] = 2,
        blocks: int = 1,
        attention: int | Sequence[int] = (),
        sparsity: float = 0.0,
        random_steps: int | Sequence[int] = (),
        early_share: float = 0.0,
        warm_share: float = 0.0,
        progressive: bool = False,
        conditioning: int = 28,
        image_channels: int = 3,
    ) -> None:
        budgets = list(steps) if isinstance(steps, Sequence) else [steps] * len(widths)
        if len(budgets) != len(widths):
            raise ValueError(f"steps takes one number or {len(widths)}, not {steps!r}")
        if not 0 <= sparsity < 1:
            raise ValueError(f"sparsity must lie in [0, 1), not {sparsity!r}")
        for name, share in (("early_share", early_share), ("warm_share", warm_share)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {share!r}")
        drawn = numbers(random_steps)
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in drawn):
            raise ValueError(
                f"random_steps must be numbers of at least 1, such as 2,3; not {random_steps!r}"
            )
        made: list[int] = []  # the level of each block

        def block(ins: int, outs: int, level: int) -> ConvLiquidBlock:
            wiring = Wiring.random(outs, sparsity=sparsity, seed=len(made)) if sparsity else None
            made.append(level)
            return ConvLiquidBlock(
                ins,
                conditioning,
                solver,
                budgets[level],
                out_channels=outs,
                wiring=wiring,
                key=len(made) - 1,
            )

        super().__init__(
            block,
            widths=widths,
            blocks=blocks,
            attention=attention,
            progressive=progressive,
            conditioning=conditioning,
            num_classes=num_classes,
            image_channels=image_channels,
        )
        self._levels = made
        self.random_steps = drawn
        self.early_share, self.warm_share = early_share, warm_share
        self._carried: States | None = None

    def budgets(self) -> list[list[LiquidPart]]:
        blocks = [block for block in self.modules() if isinstance(block, ConvLiquidBlock)]
        groups: list[list[LiquidPart]] = [[] for _ in self.down]
        for block in blocks:
            groups[self._levels[block.key]].append(block.cell)
        return groups

    @contextmanager
    def carrying_states(self) -> Iterator[None]:
        """Within the block each evaluation starts its cells from where the one before it ended.

        That is where the batch is of the same size and the maps of the same shape; the first
        evaluation starts as always. Train with ``warm_share`` above 0 for it to be of use.
        """
        before, self._carried = self._carried, {}
        try:
            yield
        finally:
            self._carried = before

    def process(self, x: Tensor, condition: Tensor) -> Tensor:
        context = Context(condition)
        if self._carried is not None:
            context.starts = self._carried
        elif self.training and self.warm_share and _draw() < self.warm_share:
            with torch.no_grad():
                first = Context(condition)
                super().process(x, first)
            context.starts = first.ends
        with self._drawn_budgets():
            out = super().process(x, context)
        if self._carried is not None:
            self._carried = {key: state.detach() for key, state in context.ends.items()}
        return out

    @contextmanager
    def _drawn_budgets(self) -> Iterator[None]:
        """Within the block, the budgets and times of one pass of training."""
        draws = self.training and (self.random_steps or self.early_share)
        parts = [part for group in self.budgets() for part in group] if draws else []
        had = [(part.steps, part.duration) for part in parts]
        try:
            if draws and self.random_steps:
                chosen = self.random_steps[int(_draw() * len(self.random_steps))]
                for part in parts:
                    part.steps = chosen
            if draws and self.early_share and _draw() < self.early_share:
                share = _draw()
                for part in parts:
                    part.stop_after(1 + int(share * (part.steps - 1)))
            yield
        finally:
            for part, (steps, duration) in zip(parts, had, strict=True):
                part.steps, part.duration = steps, duration


def _draw() -> float:
    """A number in [0, 1) from torch's global generator of the CPU, which training seeds."""
    return float(torch.rand(()))
