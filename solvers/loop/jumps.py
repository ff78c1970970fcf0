"""Solving from one jump of a field to the next.

A rule that meets a jump inside a step rejects it until the step is as short as its tolerance asks,
and a pulse that lies between the evaluations of a step it does not meet at all. Where the times of
the jumps are known, each part between two of them is solved by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from solvers.fields.base import RelaxationField, VectorField
from solvers.fields.batch_parts import WrappedFunction
from solvers.fields.jacobians import Jacobian, own_jacobian
from solvers.loop.problem import Problem
from solvers.loop.saved_times import Times
from solvers.path import joined
from solvers.solution import SUCCESS, Crossings, Solution, Stats


class SolvesProblems(Protocol):
    """What is asked of a solver here."""

    def solve_problem(self, problem: Problem) -> Solution: ...
    def with_steps(self, steps: int) -> Any: ...


def solve_between_jumps(solver: SolvesProblems, problem: Problem) -> Solution:
    """The solution, with a step that ends at every jump, where the solver starts anew.

    A sample that failed or met a terminal event is left as it is. What the solver counts in a
    solve, such as the largest number of steps, it counts in each part.

    Raises:
        ValueError: where the solver has a number of steps for the whole span.
    """
    if not problem.jumps or problem.y0.numel() == 0:
        return solver.solve_problem(replace(problem, jumps=()))
    if _has_budget(solver):
        raise ValueError(
            "jump_times is for solvers that choose the number of their steps, such as "
            f"DormandPrince(rtol=1e-5): how {solver!r} should share out its steps between the "
            "jumps is not known. Take tolerances, or solve from jump to jump with as many steps "
            "as each part is to have"
        )
    t0, t1 = problem.t_span
    inside = [time for time in problem.jumps if t0 < time < t1]
    so_far: _SoFar | None = None
    for start, end in zip([t0, *inside], [*inside, t1], strict=True):
        part = _part(problem, start, end)
        if so_far is None:
            so_far = _SoFar.of(problem, part, solver.solve_problem(part.problem))
        elif bool(so_far.live.any()):
            so_far = so_far.then(part, solver)
    assert so_far is not None
    return so_far.solution()


def _has_budget(solver: SolvesProblems) -> bool:
    try:
        return solver.with_steps(1) is not solver
    except ValueError:  # a budget, and not any
        return True


class JustInside(WrappedFunction):
    """A function that is not evaluated at the jumps where a part begins and ends.

    Settings: the times of both, None where there is none; and the size of the times that the
    function makes of these, which says how finely it tells them apart.
    """

    def __call__(self, t: Tensor, y: Tensor) -> Any:
        return self.function(self._inside(t), y)

    def _inside(self, t: Tensor) -> Tensor:
        start, end, reach = self.settings
        low = None if start is None else start + _resolved(start, reach, t)
        high = None if end is None else end - _resolved(end, reach, t)
        if low is not None and high is not None and low > high:  # a part that t cannot resolve
            low = high = 0.5 * (start + end)
        # The derivative in t, which some methods take, is the one there, and not that of a clamp.
        return t.clamp(low, high).detach() + (t - t.detach())

    @property
    def jacobian(self) -> Jacobian | None:
        own = own_jacobian(self.function)
        return None if own is None else lambda t, y: own(self._inside(t), y)


def _resolved(time: float, reach: float, t: Tensor) -> float:
    """What a time of the type of ``t`` must differ from another by, to be told apart."""
    finite = torch.finfo(t.dtype)
    return 2 * max(finite.eps * (abs(time) + reach), finite.tiny)


def _just_inside(field: VectorField, start: float | None, end: float | None, reach: float) -> Any:
    if (start is None and end is None) or getattr(field, "autonomous", False):
        return field
    if isinstance(field, RelaxationField):
        return field.wrapped(lambda function: JustInside(function, start, end, reach), field.rate)
    return JustInside(field, start, end, reach)


@dataclass(frozen=True, eq=False)
class _Part:
    """The problem between two jumps.

    Attributes:
        problem: from the state at the start of the whole.
        asked: which of the times of the whole lie in it, bool ``(M, B)`` or ``(M, 1)``.
        places: which of the whole's times the problem's are ``(m,)``; None for all.
    """

    problem: Problem
    asked: Tensor | None
    places: Tensor | None


def _part(problem: Problem, start: float, end: float) -> _Part:
    t0, t1 = problem.t_span
    at_start, at_end = (time if time in problem.jumps else None for time in (start, end))
    problem = replace(
        problem,
        field=_just_inside(problem.field, at_start, at_end, problem.reach),
        t_span=(start, end),
        jumps=(),
        resumed=start > t0,
    )
    times = problem.times
    if times is None:
        return _Part(problem, None, None)
    before, after = t1 - start, t1 - end
    device = problem.y0.device
    if times.of_each is not None:
        left = times.of_each
        asked = (left >= after) & ((left < before) | (start == t0))
        left = (left - after).clamp(0, before - after)
        return _Part(
            replace(problem, times=Times((), left, before - after)), asked.to(device), None
        )
    places = [
        place
        for place, left in enumerate(times.remaining)
        if after <= left and (left < before or start == t0)
    ]
    own = tuple(min(times.remaining[place] - after, before - after) for place in places)
    asked = torch.zeros(len(times), 1, dtype=torch.bool, device=device)
    asked[places] = True
    problem = replace(problem, times=Times(own) if own else None)
    return _Part(problem, asked, torch.tensor(places, dtype=torch.int64, device=device))


@dataclass(frozen=True, eq=False)
class _SoFar:
    """The solution over the parts that are done.

    Attributes:
        problem: the whole.
        found: the merged solution; its events and path are those of the first part.
        events: the crossings of each event, part after part.
        paths: of each part, with the places of its samples in the batch, and which of these count.
    """

    problem: Problem
    found: Solution
    events: tuple[tuple[Crossings, ...], ...]
    paths: tuple[Any, ...]

    @classmethod
    def of(cls, problem: Problem, part: _Part, found: Solution) -> _SoFar:
        """After the first part."""
        ys = _states_of(part, found, problem.y0)
        if ys is not None and part.asked is not None:
            ys = torch.where(_columns(part.asked, ys), ys, torch.nan)
        return cls(problem, replace(found, ys=ys), (found.events,), ((found.path, None, None),))

    @property
    def live(self) -> Tensor:
        """Which samples go on, of the shape of the status."""
        going = self.found.status == int(SUCCESS)
        return going if self.found.event_index is None else going & (self.found.event_index < 0)

    def then(self, part: _Part, solver: SolvesProblems) -> _SoFar:
        """After one part more."""
        live, y = self.live, self.found.y
        problem = replace(part.problem, y0=y)
        rows = None
        if not bool(live.all()):
            if problem.selectable:
                rows = live.nonzero().view(-1)
                problem = problem.select(rows)
            else:  # a sample that goes on stands in for one that does not
                own = torch.arange(len(live), device=live.device)
                problem = replace(problem, y0=y[torch.where(live, own, live.nonzero()[0])])
        found = solver.solve_problem(problem)
        old, ys = self.found, self.found.ys
        new = _states_of(part, found, y)
        if ys is not None and new is not None and part.asked is not None:
            new = new if rows is None else _spread(new, rows, ys, 1)
            ys = torch.where(_columns(part.asked & live, ys), new, ys)

        def merged(before: Any, after: Any) -> Any:
            """Of each sample, what came of it in this part if it went on."""
            if before is None or after is None or bool(live.all()):
                return after
            after = after if rows is None else _spread(after, rows, before, 0)
            return torch.where(_columns(live, before), after, before)

        merged_solution = replace(
            old,
            y=merged(y, found.y),
            ys=ys,
            stats=_added(old.stats, found.stats, rows, live),
            status=merged(old.status, found.status),
            event_time=merged(old.event_time, found.event_time),
            event_index=merged(old.event_index, found.event_index),
            succeeded=old.succeeded and found.succeeded and rows is None,
            remark=found.remark or old.remark,
        )
        counted = None if rows is not None or bool(live.all()) else live
        events = tuple(_of_batch(each, rows, counted) for each in found.events)
        return _SoFar(
            self.problem,
            merged_solution,
            (*self.events, events),
            (*self.paths, (found.path, rows, counted)),
        )

    def solution(self) -> Solution:
        path = self.found.path
        if path is not None:
            path = joined(self.paths, self.problem.t_span)
        events = tuple(map(_in_order, zip(*self.events, strict=True)))
        return replace(self.found, events=events, path=path)


def _columns(which: Tensor, like: Tensor) -> Tensor:
    """With axes of one after its own, as many as another has."""
    return which.view(*which.shape, *[1] * (like.ndim - which.ndim))


def _spread(values: Tensor, rows: Tensor, like: Tensor, axis: int) -> Tensor:
    """Values of some samples in a tensor of all of them."""
    return like.detach().index_copy(axis, rows, values.to(like.dtype))


def _states_of(part: _Part, found: Solution, y: Tensor) -> Tensor | None:
    """The states at all times of the whole; of those outside of the part, whatever they are."""
    if part.asked is None:
        return None
    if part.places is None:
        return found.ys
    states = found.y if found.ys is None else found.ys[0]
    whole = states.detach().new_full((len(part.asked), *states.shape), torch.nan)
    return whole if found.ys is None else whole.index_copy(0, part.places, found.ys)


def _added(old: Stats, new: Stats, rows: Tensor | None, live: Tensor) -> Stats:
    """The work of both; that of samples which are evaluated for the others' sake is counted."""

    def total(name: str) -> int | Tensor:
        before, after = getattr(old, name), getattr(new, name)
        if not isinstance(before, Tensor) or not isinstance(after, Tensor):
            return before + after
        if rows is not None:
            return before.index_add(0, rows, after)
        return before + (after if name in {"nfe", "jacobians"} else after * live)

    return Stats(*map(total, ("nfe", "accepted", "rejected", "jacobians")))


def _of_batch(found: Crossings, rows: Tensor | None, counted: Tensor | None) -> Crossings:
    """The crossings with their samples' places in the batch, of those that count."""
    if rows is not None:
        return replace(found, samples=rows[found.samples])
    if counted is None:
        return found
    kept = counted[found.samples]
    return Crossings(found.samples[kept], found.times[kept], found.states[kept])


def _in_order(parts: Sequence[Crossings]) -> Crossings:
    """The crossings of one event, part after part, by sample and time."""
    samples = torch.cat([part.samples for part in parts])
    order = samples.argsort(stable=True)
    times, states = (torch.cat([getattr(x, name) for x in parts]) for name in ("times", "states"))
    return Crossings(samples[order], times[order], states[order])
