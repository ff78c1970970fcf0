"""What the samplers share that step from level to level."""

from __future__ import annotations

from dataclasses import dataclass

from liquid_ode.diffusion.checks import check_count
from liquid_ode.diffusion.grids import TimeGrid, TrailingGrid
from liquid_ode.diffusion.sampling import Sampler
from liquid_ode.diffusion.schedules import Schedule


@dataclass(frozen=True)
class GridSampler(Sampler):
    """A sampler that steps from level to level of a grid, and from the last to the clean image.

    Args:
        steps: how many steps, on the grid that is usual for the sampler; or any
            :class:`TimeGrid`.

    Raises:
        ValueError: where ``steps`` is neither.
    """

    steps: int | TimeGrid = 50

    def __post_init__(self) -> None:
        if not isinstance(self.steps, TimeGrid):
            check_count("steps", self.steps)

    @property
    def grid(self) -> TimeGrid:
        """The levels visited."""
        return self.steps if isinstance(self.steps, TimeGrid) else self._usual_grid(self.steps)

    def _usual_grid(self, steps: int) -> TimeGrid:
        return TrailingGrid(steps)

    def first_sigma(self, schedule: Schedule) -> float:
        return self.grid.levels(schedule)[0].sigma
