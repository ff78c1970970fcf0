"""What holds of every solve, whatever the field, the span, the batch, the type and the solver.

``HYPOTHESIS_PROFILE=deep`` looks much further than the few fixed examples of a usual run.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import solvers
from solvers import (
    PID,
    BacksolveAdjoint,
    Checkpointing,
    DormandPrince,
    ParameterisedField,
    SemilinearField,
)

_COMMON: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("quick", max_examples=20, derandomize=True, **_COMMON)
settings.register_profile("deep", max_examples=1500, print_blob=True, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

SEMILINEAR = {"exponential_euler", "semi_implicit_euler", "etdrk2", "etdrk4"}
BUDGETS = [name for name in solvers.names() if solvers.options(name).get("steps")]
CONTROLLED = [name for name in solvers.names() if name not in BUDGETS]
ADAPTER = {"rk4", "dopri5"}


def linear(t: Tensor, y: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    return torch.einsum("bij,bj->bi", matrix, y) + shift


def network(t: Tensor, y: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    return torch.tanh(2 * torch.einsum("bij,bj->bi", matrix, torch.tanh(y) + shift))


def timed(t: Tensor, y: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    return torch.cos(2 * t + shift) * torch.tanh(torch.einsum("bij,bj->bi", matrix, y))


FUNCTIONS = {"linear": linear, "network": network, "timed": timed}


@dataclass(frozen=True)
class Case:
    """A random problem, and the solver that it is given to."""

    solver: solvers.Solver
    name: str
    kind: str
    dtype: torch.dtype
    y0: Tensor
    tensors: tuple[Tensor, Tensor]
    tau: Tensor | None
    droppable: bool
    span: tuple[float, float]
    tol: float | None

    def field(self, rows: Any = slice(None), sign: float = 1.0, shift: float = 0.0) -> Any:
        """The field of some samples, times a sign, of a time that is later."""
        function = FUNCTIONS[self.kind]
        own = tuple(x[rows] for x in self.tensors)
        if self.tau is not None:
            target = ParameterisedField(function, *own)
            return SemilinearField(target if self.droppable else target.__call__, self.tau[rows])

        def moved(t: Tensor, y: Tensor, *own: Tensor) -> Tensor:
            return sign * function(t - shift, y, *own)

        field = ParameterisedField(moved, *own)
        return field if self.droppable else field.__call__  # which says nothing of its rows

    def solve(
        self, y0: Any = None, span: Any = None, field: Any = None, solver: Any = None
    ) -> solvers.Solution:
        return (solver or self.solver).solve(
            self.field() if field is None else field,
            self.y0 if y0 is None else y0,
            self.span if span is None else span,
        )

    def near(self, found: Any, expected: Any, *, exact: bool = False, steps: Any = 1) -> None:
        """Equal to rounding, or to the error that the tolerance allows in so many steps."""
        far = 1 + max(map(abs, self.span))
        slack = 400 * torch.finfo(self.dtype).eps * (1 if self.kind != "timed" else far)
        slack += 400 * torch.finfo(torch.float64).eps * far  # of steps that are cut from the span
        if self.tol is not None:
            many = int(torch.as_tensor(steps).max())
            slack += self.tol * (0.3 if exact else 20 * (1 + many))
        size = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(found, expected, rtol=0, atol=slack * size)


@st.composite
def cases(
    draw: st.DrawFn, names: list[str], kinds: tuple[str, ...] = tuple(FUNCTIONS), even: bool = False
) -> Case:
    name = draw(st.sampled_from(names))
    features = draw(st.sampled_from([2, 4] if even else [1, 2, 3, 5]))
    batch = draw(st.sampled_from(sorted({1, 2, features, 7})))
    dtype = draw(st.sampled_from([torch.float64, torch.float32]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    # Rows of their own: some decay, some turn, some both; none grows by much.
    rough = normal(batch, features, features)
    turn, still = rough - rough.mT, torch.rand(batch, 1, 1, generator=generator).double()
    matrix = turn * (1 - still) - still * torch.eye(features).double() + 0.1 * rough
    matrix = matrix / matrix.flatten(1).norm(dim=1).clamp(min=1.0).view(-1, 1, 1)
    tau = 0.3 + torch.rand(batch, features, generator=generator).double()
    tensors = matrix.to(dtype), normal(batch, features).to(dtype)
    t0 = draw(st.one_of(st.just(0.0), st.floats(-3, 3), st.sampled_from([-400.0, 1000.0])))
    length = draw(st.floats(0.05, 3.0))
    tol = None
    if name in BUDGETS:
        solver = solvers.get(name, steps=2 * draw(st.integers(1, 12)))
    else:
        tol = draw(st.sampled_from([1e-3, 1e-4] if dtype == torch.float32 else [1e-3, 1e-6]))
        tol = max(tol, 1e-4) if name == "heun_euler" else tol
        solver = solvers.get(name, rtol=tol, atol=tol)
    leaks = name in SEMILINEAR or draw(st.booleans())
    y0 = 2 * normal(batch, features).to(dtype)
    span = t0, t0 + length
    kind, droppable = draw(st.sampled_from(kinds)), draw(st.booleans())
    leak = tau.to(dtype) if leaks else None
    return Case(solver, name, kind, dtype, y0, tensors, leak, droppable, span, tol)


EVERY = BUDGETS + CONTROLLED
PER_SAMPLE = [name for name in EVERY if name not in ADAPTER]
GENERAL = [name for name in EVERY if name not in SEMILINEAR]
EQUAL = [name for name in BUDGETS if name != "euler"]  # whose steps depend on where it is


@given(cases(EQUAL + CONTROLLED))
def test_half_way_twice_is_once(case: Case) -> None:
    t0, t1 = case.span
    solver, middle = case.solver, (t0 + t1) / 2
    half = solver if case.tol else solver.with_steps(_steps(solver) // 2)
    there = case.solve(span=(t0, middle), solver=half).y
    once = case.solve()
    twice = case.solve(there, (middle, t1), solver=half)
    case.near(twice.y, once.y, steps=once.stats.accepted)


def _steps(solver: Any) -> int:
    return int(solver.steps if hasattr(solver, "steps") else solver.step_size.steps)


@given(cases([name for name in CONTROLLED if name not in SEMILINEAR]))
def test_back_after_forth_returns(case: Case) -> None:
    case = replace(case, tau=None)  # a leak grows backwards, and so do errors
    there = case.solve()
    back = case.solve(there.y, case.span[::-1])
    case.near(back.y, case.y0, steps=torch.as_tensor(back.stats.accepted).max() * 2)


@given(cases(GENERAL))
def test_backwards_is_the_negated_field_forwards(case: Case) -> None:
    case = replace(case, tau=None)
    t0, t1 = case.span
    back = case.solve(span=(t1, t0)).y

    def negated(s: Tensor, y: Tensor) -> Tensor:
        return -case.field()(t0 + t1 - s, y)

    case.near(back, case.solve(field=negated).y, exact=True)


@given(cases(PER_SAMPLE))
def test_a_batch_is_each_of_its_samples_alone(case: Case) -> None:
    whole = case.solve().y
    for row in range(len(whole)):
        rows = slice(row, row + 1)
        alone = case.solve(case.y0[rows], field=case.field(rows)).y
        case.near(whole[rows], alone, exact=True)


@given(cases(EVERY), st.randoms(use_true_random=False))
def test_rows_in_another_order_give_results_in_that_order(case: Case, random: Any) -> None:
    order = list(range(len(case.y0)))
    random.shuffle(order)
    index = torch.tensor(order)
    found = case.solve(case.y0[index], field=case.field(index)).y
    case.near(found, case.solve().y[index], exact=True)


@given(cases(["dormand_prince", "dopri5"]))
def test_shared_control_is_that_of_torchdiffeq(case: Case) -> None:
    assert case.tol
    ours = case.solve(solver=DormandPrince(step_size=PID(case.tol, case.tol, shared=True)))
    theirs = case.solve(solver=solvers.get("dopri5", rtol=case.tol, atol=case.tol))
    case.near(ours.y, theirs.y, steps=ours.stats.accepted)


@given(cases(EVERY))
def test_a_structure_is_its_parts_beside_each_other(case: Case) -> None:
    field = case.field()
    target = field.target if isinstance(field, SemilinearField) else field

    def packed(y: Any) -> Tensor:
        return torch.cat([y["one"][0], y["rest"]], 1)

    def parts(t: Tensor, y: Any) -> dict[str, Any]:
        value = target(t, packed(y))
        return {"rest": value[:, 1:], "one": [value[:, :1]]}

    own: Any = parts
    if case.tau is not None:  # of all parts
        own, field = (SemilinearField(x, case.tau[:, :1]) for x in (parts, target))
    y0 = {"one": [case.y0[:, :1]], "rest": case.y0[:, 1:]}
    found: Any = case.solve(y0, field=own).y
    case.near(packed(found), case.solve(field=field).y, exact=True)


@given(cases(EVERY, even=True))
def test_a_complex_state_is_its_real_and_imaginary_parts(case: Case) -> None:
    field = case.field()
    target = field.target if isinstance(field, SemilinearField) else field

    def joined(z: Tensor) -> Tensor:
        return torch.cat([z.real, z.imag], 1)

    def split(y: Tensor) -> Tensor:
        return torch.complex(*y.chunk(2, 1))

    def of_complex(t: Tensor, z: Tensor) -> Tensor:
        return split(target(t, joined(z)))

    own: Any = of_complex
    if case.tau is not None:
        half = case.tau[:, : case.tau.shape[1] // 2]
        own, field = SemilinearField(own, half), SemilinearField(target, torch.cat([half, half], 1))
    found: Any = case.solve(split(case.y0), field=own).y
    case.near(joined(found), case.solve(field=field).y, exact=True)


@given(cases(EVERY, ("linear", "network")), st.floats(-50, 50))
def test_an_autonomous_field_knows_no_time(case: Case, shift: float) -> None:
    t0, t1 = case.span
    later = t0 + shift, t1 + shift
    case.near(case.solve(span=later).y, case.solve().y, exact=True)


@given(cases([name for name in GENERAL if name not in ADAPTER]), st.floats(-5, 5))
def test_a_field_that_is_later_gives_the_same_later(case: Case, shift: float) -> None:
    case = replace(case, tau=None, span=(case.span[0] % 1, case.span[0] % 1 + 1))
    t0, t1 = case.span
    found = case.solve(span=(t0 + shift, t1 + shift), field=case.field(shift=shift)).y
    case.near(found, case.solve().y, exact=True)


@given(cases(PER_SAMPLE), st.integers(0, 2**20), st.booleans())
def test_spans_of_each_sample_are_those_of_each_alone(case: Case, seed: int, turned: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    t0, t1 = case.span
    ends = torch.rand(2, len(case.y0), generator=generator).double() * (t1 - t0) + t0
    backwards = turned and case.name not in SEMILINEAR
    if backwards:
        case = replace(case, tau=None)
    else:
        ends = ends.sort(0).values
    together = case.solve(span=(ends[0], ends[1]))
    for row in range(len(case.y0)):
        rows = slice(row, row + 1)
        span = float(ends[0, row]), float(ends[1, row])
        alone = case.solve(case.y0[rows], span, case.field(rows)).y
        case.near(together.y[rows], alone, steps=together.stats.accepted)
    assert math.isfinite(float(together.y.abs().max()))


def gradients(case: Case, solver: solvers.Solver, *, each: bool) -> list[Tensor]:
    """Those of a loss to the state, the field, both ends and the asked times."""
    t0, t1 = (torch.tensor(t, dtype=torch.float64) for t in case.span)
    asked = torch.lerp(t0, t1, torch.linspace(0, 1, 3).double())
    if each:  # every sample another part of the span
        late = torch.linspace(0, 0.2, len(case.y0)).double()
        t0, t1, asked = (t.unsqueeze(-1) + late * (t1 - t0) for t in (t0, t1, asked))
        t0, t1 = t0.squeeze(0), t1.squeeze(0)
    leaves = [x.clone().requires_grad_() for x in (case.y0, *case.tensors, t0, t1, asked)]
    y0, matrix, shift, t0, t1, asked = leaves
    own = replace(case, tensors=(matrix, shift))
    solution = solver.solve(own.field(), y0, (t0, t1), t_eval=asked)
    assert solution.ys is not None
    loss = torch.sin(solution.y).sum() + torch.cos(solution.ys).sum() / 3
    found = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return list(found)


def all_near(case: Case, found: list[Tensor], expected: list[Tensor], steps: Any = 1) -> None:
    for one, other in zip(found, expected, strict=True):
        case.near(one.double(), other.double(), exact=case.tol is None, steps=steps)


@given(cases([name for name in EVERY if name not in ADAPTER]), st.booleans())
def test_checkpoints_change_no_gradient(case: Case, each: bool) -> None:
    solver: Any = case.solver
    kept = gradients(case, solver, each=each)
    again = gradients(case, replace(solver, gradient=Checkpointing()), each=each)
    all_near(replace(case, tol=None), again, kept)


@given(cases(["dormand_prince", "tsit5", "bosh3"]), st.booleans())
def test_the_adjoint_gives_the_gradient_within_tolerance(case: Case, each: bool) -> None:
    case = replace(case, tau=None, span=(case.span[0] % 1, case.span[0] % 1 + 1))
    solver: Any = case.solver
    through = gradients(case, solver, each=each)
    back = gradients(case, replace(solver, gradient=BacksolveAdjoint()), each=each)
    all_near(case, back, through, steps=20)
