"""Where a function of a sample's state crosses zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solvers.checks import check_flag
from solvers.fields.base import VectorField
from solvers.methods.interpolation import Path

_PARTS = 8  # of a step, over each of which a crossing is looked for


def check_events(event: Any) -> tuple[Event, ...]:
    """The events of the argument ``event`` of :meth:`solvers.Solver.solve`.

    Raises:
        ValueError: where it is neither one nor a sequence of them.
    """
    events = () if event is None else event if isinstance(event, (tuple, list)) else (event,)
    for each in events:
        if not isinstance(each, Event):
            raise ValueError(
                f"event must be solvers.Event(function), or a sequence of such events, not {each!r}"
            )
    return tuple(events)


class Bracket(NamedTuple):
    """Where in its step each sample crosses, as fractions; values ``(n,)`` at both ends."""

    crossed: Tensor
    low: Tensor
    high: Tensor
    at_low: Tensor
    at_high: Tensor


@dataclass(frozen=True)
class Event:
    """A crossing of zero by ``function(t, y)`` of a sample, which ends that sample's solve or not.

    The crossings are found on the dense output within each step, at whose ends and at some points
    between the function is looked at; where it nears zero between them and turns, there too. Where
    it only touches zero, rounding decides. At the start of a solve a value of 0 is no crossing, so
    that a solve may go on from an event.
    Gradients flow to the states and the times of crossings as the implicit function theorem has it.

    Args:
        function: ``function(t, y) -> (B,)`` for times ``(B, 1, ..., 1)`` and states ``(B, ...)``;
            no sample's value may depend on another's. For one system ``(d,)``, and with
            ``PID(shared=True)``, one value ``()``. One with a ``select`` lets the solve leave
            samples out that have ended.
        direction: 1 for crossings from below, as the solve goes, -1 from above, 0 for both.
        terminal: whether a sample's solve ends at its first crossing; where not, each is recorded
            and the solve goes on.
        goes_on: whether the solve goes on from one in which the same was looked for, so that a
            crossing in its first moments counts as any other.

    Raises:
        ValueError: where the direction is none of these, or, on use, the function returns
            another shape.
    """

    function: VectorField | Callable[[Tensor, Tensor], Tensor]
    direction: int = 0
    terminal: bool = True
    goes_on: bool = False

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ValueError(f"an event needs a function(t, y), not {type(self.function).__name__}")
        if self.direction not in {-1, 0, 1}:
            raise ValueError(f"direction must be -1, 0 or 1, not {self.direction!r}")
        check_flag("terminal", self.terminal)
        check_flag("goes_on", self.goes_on)

    def value(self, function: Any, t: Tensor, y: Tensor) -> Tensor:
        """The function's values ``(n,)``."""
        value = function(t, y)
        if isinstance(value, Tensor) and not value.is_floating_point():
            raise ValueError(
                "an event's function must return a distance with a sign, such as y[:, 0] - 0.5, "
                f"not a condition: it returned {value.dtype}"
            )
        if not isinstance(value, Tensor) or value.shape != y.shape[:1]:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                "an event's function must return one value a sample, shape "
                f"({y.shape[0]},); it returned {shape}"
            )
        return value.to(y.dtype)

    def _crossed(self, before: Tensor, after: Tensor) -> Tensor:
        """Where values cross zero in the wanted direction."""
        up = (before < 0) & (after >= 0)
        down = (before > 0) & (after <= 0)
        return {1: up, -1: down, 0: up | down}[self.direction]

    @torch.no_grad()
    def look(
        self,
        function: Any,
        path: Path,
        t: Tensor,
        before: Tensor,
        after: Tensor,
        *,
        taken: Tensor,
        started: Tensor,
    ) -> list[Bracket]:
        """The crossings within each sample's step: the first of each, the second of each, ...

        Of a terminal event only the first.

        Args:
            function: the event's function for these rows.
            path: their steps, from ``t`` ``(n, 1, ..., 1)``.
            before, after: the function's values at both ends.
            taken: which samples take the step, bool ``(n,)``.
            started: which have taken one before. In the first, a value that is 0 but for rounding
                crosses nothing: a solve may go on from an event.
        """
        thetas, values = self._sampled(function, path, t, before, after, started)
        crossings = self._crossed(values[:-1], values[1:]) & taken
        number = crossings.cumsum(0)
        most = min(int(number.max()), 1 if self.terminal else len(number))
        brackets = []
        for count in range(1, most + 1):
            here = crossings & (number == count)
            low = here.to(torch.int8).argmax(0, keepdim=True)
            ends = [x.gather(0, i).squeeze(0) for x in (thetas, values) for i in (low, low + 1)]
            brackets.append(Bracket(here.any(0), *ends))
        return brackets

    def _sampled(
        self, function: Any, path: Path, t: Tensor, before: Tensor, after: Tensor, started: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fractions of the step and the values there, ``(Q, n)``, in order."""
        points = torch.linspace(0, 1, _PARTS + 1, dtype=before.dtype, device=before.device)
        thetas = points.unsqueeze(1).expand(-1, before.shape[0])  # (P + 1, n)
        inner = [self._within(function, path, t, theta.view(t.shape)) for theta in thetas[1:-1]]
        values = torch.stack([before, *inner, after])
        rounding = torch.finfo(values.dtype).eps ** (1 / 3) * (values[1] - before).abs()
        if not self.goes_on:
            values[0] = torch.where((before.abs() <= rounding) & ~started, 0.0, before)
        a, b, c = values[:-2], values[1:-1], values[2:]
        # A point that is a root itself, of values of one sign around it: they may turn beside it.
        beside = (b == 0) & (a * c > 0)
        values[1:-1] = b = torch.where(beside, torch.finfo(values.dtype).eps * a, b)
        bend = a - 2 * b + c
        # Between points of one sign it may have been across and back, where a parabola turns.
        dips = (a * b > 0) & (b * c > 0) & (bend * b > 0) & ((a - c).abs() < 2 * bend.abs())
        places = dips.any(1).nonzero().view(-1).tolist()
        if not places:
            return thetas, values
        shifts = torch.where(dips, 0.5 * (a - c) / bend, 0.0)
        turns = (thetas[1:-1] + shifts / _PARTS)[places]
        seen = [self._within(function, path, t, theta.view(t.shape)) for theta in turns]
        thetas, order = torch.cat([thetas, turns]).sort(dim=0, stable=True)
        return thetas, torch.cat([values, torch.stack(seen)]).gather(0, order)

    def root(self, function: Any, path: Path, t: Tensor, bracket: Bracket) -> Tensor:
        """The fractions of the step ``(n,)`` at the crossings; of other samples, some fraction."""
        with torch.no_grad():
            return self._root(function, path, t, bracket)

    def locate(
        self, function: Any, path: Path, t: Tensor, theta: Tensor, crossed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The states and times of crossings, with their gradients, where ``theta`` is the root."""
        theta = theta.view(t.shape)
        if torch.is_grad_enabled():
            theta = self._with_gradient(function, path, t, theta, crossed)
        return path.at(theta), t + theta * path.dt

    def _within(self, function: Any, path: Path, t: Tensor, theta: Tensor) -> Tensor:
        y = path.at(theta)
        return self.value(function, (t + theta * path.dt).to(y.dtype), y)

    def _root(self, function: Any, path: Path, t: Tensor, bracket: Bracket) -> Tensor:
        """The fraction of the step at the crossing, by bisection and the Illinois rule in turn."""
        crossed, low, high, at_low, at_high = bracket
        for count in range(60):
            width = high - low
            if bool(((width <= 4 * torch.finfo(width.dtype).eps) | ~crossed).all()):
                break
            secant = low + width * (at_low / (at_low - at_high)).nan_to_num(nan=0.5)
            # Kept off both ends, or it would stay where one of them is the root but for rounding.
            near = 2 * torch.finfo(width.dtype).eps
            secant = secant.clamp(low + near, high - near)
            theta = 0.5 * (low + high) if count % 3 == 2 else secant
            value = self._within(function, path, t, theta.view(t.shape))
            below = torch.sign(value) == torch.sign(at_low)
            low, high = torch.where(below, theta, low), torch.where(below, high, theta)
            # The end that stays counts half, or the secant would creep up from one side only.
            at_low, at_high = (
                torch.where(below, value, 0.5 * at_low),
                torch.where(below, 0.5 * at_high, value),
            )
        return high

    def _with_gradient(
        self, function: Any, path: Path, t: Tensor, theta: Tensor, crossed: Tensor
    ) -> Tensor:
        """The same fraction, with its derivatives: two steps of Newton's method from the root.

        One has the first derivative, -dg / (dg/dtheta); two have the second and the third.
        """
        with torch.enable_grad():
            if not self._within(function, path, t, theta).requires_grad:
                return theta
            theta = theta.detach().requires_grad_()
            columns = crossed.view(theta.shape)
            for _ in range(2):
                value = self._within(function, path, t, theta)
                (slope,) = torch.autograd.grad(value.sum(), theta, create_graph=True)
                # A sample without a crossing stays where it is.
                change = torch.where(columns, value.view(theta.shape), 0.0)
                theta = theta - change / torch.where(columns, slope, 1.0)
        return theta
