"""What every part of a model that solves an ODE has in common: its budget, and its time."""

from __future__ import annotations

from torch import nn

from liquid_ode.models.blocks import check_width


class LiquidPart(nn.Module):
    """A part whose state flows for one unit of time, in so many steps of its solver.

    Args:
        steps: budget of solver steps; a solver driven by a tolerance takes what it needs.

    Attributes:
        duration: for how long the state flows; less than 1 in a part that stops early.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = check_width("steps", steps)
        self.duration = 1.0

    def stop_after(self, steps: int) -> None:
        """Flow for ``steps`` of the budget's steps only.

        Raises:
            ValueError: where that is not in [1, the budget].
        """
        if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= self.steps:
            raise ValueError(
                f"a part with a budget of {self.steps} solver steps can stop early after 1 to "
                f"{self.steps} of them, not after {steps!r}"
            )
        self.duration *= steps / self.steps
        self.steps = steps
