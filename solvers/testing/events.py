"""Checks of events and of the path, on a field whose solution is known."""

from __future__ import annotations

import torch
from torch import Tensor

from solvers.loop.events import Event
from solvers.methods.base import Method
from solvers.native import NativeSolver
from solvers.solver import Solver
from solvers.testing.kinds import accurate, as_solver, is_semilinear, require, require_close
from solvers.testing.problems import Logistic, field_of

TIMES = (0.0, 0.21, 0.55, 0.97, 1.0)


def check_events(solver: Solver | Method) -> None:
    """A native solver ends samples at their events, records others, and gives the path up to there.

    Of three samples of y' = r cos(t) y (1 - y) two come to the level of a terminal event. Times
    are as accurate as the states; the states there are on the path, and those on the surface.

    Raises:
        AssertionError: where they are not.
    """
    solver = as_solver(solver)
    if not isinstance(solver, NativeSolver):
        return
    solver = accurate(solver, 64, 1e-5)
    semilinear = is_semilinear(solver)
    y0 = torch.tensor([[0.3], [0.55], [0.6]], dtype=torch.float64)
    rate = torch.tensor([[2.0], [0.2], [1.0]], dtype=y0.dtype)
    problem, level = Logistic(rate), 0.65
    events = [
        Event(lambda t, y: y[:, 0] - level, direction=1),
        Event(lambda t, y: y[:, 0] - 0.62, terminal=False),
    ]
    field = field_of(problem, y0, semilinear=semilinear)
    plain = solver.solve(field, y0, t_eval=TIMES)
    found = solver.solve(field, y0, t_eval=TIMES, event=events, dense=True)
    odds = torch.log(level / (1 - level) * (1 - y0) / y0)
    times = torch.asin(odds / rate)[:, 0]  # of the growth exp(r sin t); NaN where never
    times = torch.where(times > 1, torch.nan, times)
    what = f"{solver!r} should "
    if found.event_time is None or found.path is None or found.event_index is None:
        raise AssertionError(f"{what}return event_time, event_index and path where asked")
    ended = ~times.isnan()
    _require_same(found.event_time, times, what + "find the times of the events", 2e-2)
    require(
        found.event_index.tolist() == [0 if end else -1 for end in ended.tolist()],
        f"{what}say which event ended a sample, not {found.event_index.tolist()}",
    )
    last = torch.where(ended, level, plain.y[:, 0])
    require_close(found.y[:, 0], last, what + "end on the surface, or where it does without", 1e-9)
    asked = torch.tensor(TIMES, dtype=y0.dtype)
    over = (asked[:, None] > found.event_time)[..., None]
    expected = torch.where(over, torch.nan, torch.as_tensor(plain.ys))
    for name, values in (("ys", found.ys), ("path(t_eval)", found.path(asked))):
        text = f"{what}give in {name} the states without events, and NaN after them"
        _require_same(torch.as_tensor(values), expected, text, 1e-9)
    crossed = found.events[1]
    on_path = found.path(crossed.times[:, None].expand(-1, len(y0)))
    on_path = on_path[torch.arange(len(crossed.times)), crossed.samples]
    require_close(crossed.states, on_path, what + "record crossings that lie on the path", 1e-9)
    require(
        crossed.samples.tolist() == [0, 2],
        f"{what}record one crossing of 0 and 2, not of {crossed.samples.tolist()}",
    )


def _require_same(found: Tensor, expected: Tensor, what: str, tolerance: float) -> None:
    """The same numbers, and NaN at the same places."""
    require(torch.equal(found.isnan(), expected.isnan()), f"{what}: it is {found}, not {expected}")
    require_close(found.nan_to_num(), expected.nan_to_num(), what, tolerance)
