"""Every kind of solver and gradient mode under every transform: right, or refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import solvers
from solvers import (
    ETDRK2,
    ETDRK4,
    PID,
    Backpropagation,
    BacksolveAdjoint,
    Checkpointing,
    ClassicRK4,
    DormandPrince,
    Euler,
    ExponentialEuler,
    GradientScaled,
    HeunEuler,
    LearnedMethod,
    LearnedSolver,
    NativeSolver,
    SemiImplicitEuler,
    SemilinearField,
    Solver,
    Uniform,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's, at the first jvp

WEIGHT = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 2
Y0 = torch.linspace(-1.0, 1.0, 12, dtype=torch.float64).view(4, 3)
TIGHT: dict[str, float] = {"rtol": 1e-8, "atol": 1e-8}

BUDGETS: list[NativeSolver] = [
    Euler(4),
    Euler(step_size=Uniform(4)),
    ClassicRK4(3, gradient=Backpropagation()),
    ClassicRK4(step_size=GradientScaled(3)),
    DormandPrince(3),
    ExponentialEuler(3),
    SemiImplicitEuler(3),
    ETDRK2(3),
]
CONTROLLED: list[NativeSolver] = [
    DormandPrince(**TIGHT),
    HeunEuler(step_size=PID(1e-4, 1e-4, proportional=0.4, integral=0.6)),
    DormandPrince(step_size=PID(1e-8, 1e-8, shared=True)),
    ETDRK4(rtol=1e-6, atol=1e-6),
]
EXACT = [Backpropagation(), Checkpointing()]


def field_for(solver: Solver, weight: Tensor = WEIGHT) -> Any:
    """dy/dt = tanh(y W) - y, with its leak shown to the methods that want it."""

    def target(t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(y @ weight)

    if isinstance(getattr(solver, "method", None), solvers.SemilinearMethod):
        return SemilinearField(target, 1.0)
    return lambda t, y: target(t, y) - y


def ends(solver: Solver, t_eval: list[float] | None = None) -> Callable[[Tensor], Tensor]:
    """y at t1, through t_eval where times are asked for."""

    def final(y: Tensor) -> Tensor:
        solution = solver.solve(field_for(solver), y, t_eval=t_eval)
        return solution.y if solution.ys is None else solution.ys[-1]

    return final


def expected_jacobian(solver: Solver) -> Tensor:
    """(4, 3, 4, 3), row by row, by plain backpropagation."""
    plain = (
        replace(solver, gradient=Backpropagation()) if isinstance(solver, NativeSolver) else solver
    )
    return torch.autograd.functional.jacobian(ends(plain), Y0)  # type: ignore[no-any-return]


def name_of(value: Any) -> str:
    if isinstance(value, NativeSolver):
        shared = "-shared" if value.step_size.shared else ""
        return f"{type(value).__name__}-{type(value.step_size).__name__}{shared}"
    return type(value).__name__ if not isinstance(value, str) else value


Transform = Callable[[Callable[[Tensor], Tensor]], Tensor]
ONES = torch.ones_like(Y0)

# What each gives of the Jacobian J of y(t1) with respect to y0.
REVERSE: dict[str, tuple[Transform, Callable[[Tensor], Tensor]]] = {
    "vjp": (lambda f: torch.func.vjp(f, Y0)[1](ONES)[0], lambda j: j.sum((0, 1))),
    "grad": (lambda f: torch.func.grad(lambda y: f(y).sum())(Y0), lambda j: j.sum((0, 1))),
    "jacrev": (lambda f: torch.func.jacrev(f)(Y0), lambda j: j),
    "vectorize": (
        lambda f: torch.autograd.functional.jacobian(f, Y0, vectorize=True),
        lambda j: j,
    ),
}
FORWARD: dict[str, tuple[Transform, Callable[[Tensor], Tensor]]] = {
    "jvp": (lambda f: torch.func.jvp(f, (Y0,), (ONES,))[1], lambda j: j.sum((2, 3))),
    "jacfwd": (lambda f: torch.func.jacfwd(f)(Y0), lambda j: j),
}
BATCHED: dict[str, tuple[Transform, Callable[[Tensor], Tensor]]] = {
    "vmap-jacrev": (
        lambda f: torch.func.vmap(torch.func.jacrev(lambda y: f(y[None])[0]))(Y0),
        lambda j: torch.einsum("bibj->bij", j),
    ),
    "vmap-jvp": (
        lambda f: torch.func.vmap(
            lambda y: torch.func.jvp(lambda y: f(y[None])[0], (y,), (torch.ones_like(y),))[1]
        )(Y0),
        lambda j: torch.einsum("bibj->bi", j),
    ),
}


@pytest.mark.parametrize("mode", EXACT, ids=name_of)
@pytest.mark.parametrize("solver", [*BUDGETS, *CONTROLLED], ids=name_of)
def test_derivatives_are_right(solver: NativeSolver, mode: solvers.GradientMode) -> None:
    solver = replace(solver, gradient=mode)
    jacobian = expected_jacobian(solver)
    transforms = REVERSE | FORWARD
    if not solver.step_size.controlled:
        transforms |= BATCHED
    for name, (apply, part) in transforms.items():
        found = apply(ends(solver))
        torch.testing.assert_close(
            found, part(jacobian), rtol=1e-10, atol=1e-12, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("solver", [*BUDGETS, *CONTROLLED], ids=name_of)
def test_derivatives_of_states_on_the_way(solver: NativeSolver) -> None:
    jacobian = expected_jacobian(solver)
    for name in ("vjp", "jacrev", "jvp"):
        apply, part = (REVERSE | FORWARD)[name]
        found = apply(ends(solver, t_eval=[0.35, 1.0]))
        torch.testing.assert_close(found, part(jacobian), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("solver", [*BUDGETS, *CONTROLLED], ids=name_of)
@pytest.mark.parametrize("recording", [torch.no_grad, torch.inference_mode, nullcontext])
def test_forward_mode_does_not_mind_whether_gradients_are_recorded(
    solver: NativeSolver, recording: Callable[[], AbstractContextManager[Any]]
) -> None:
    """Through the state, and through what the field holds; the step size carries none."""
    expected = torch.func.jvp(ends(solver), (Y0,), (ONES,))[1]
    with recording():
        torch.testing.assert_close(torch.func.jvp(ends(solver), (Y0,), (ONES,))[1], expected)
        if recording is torch.inference_mode:  # which has no dual tensors but in torch.func
            return
        with forward_ad.dual_level():
            dual = ends(solver)(forward_ad.make_dual(Y0, ONES))
            torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, expected)

    def of_weight(weight: Tensor) -> Tensor:
        return solver.solve(field_for(solver, weight), Y0).y

    direction = torch.ones_like(WEIGHT)
    jacobian = torch.autograd.functional.jacobian(of_weight, WEIGHT)
    with recording():
        found = torch.func.jvp(of_weight, (WEIGHT,), (direction,))[1]
    torch.testing.assert_close(found, jacobian.sum((2, 3)), rtol=1e-10, atol=1e-12)


def test_second_derivatives() -> None:
    for solver in (ClassicRK4(2), DormandPrince(**TIGHT), Euler(3)):
        hessian = torch.func.hessian(lambda y, f=ends(solver): f(y[None]).sum())(Y0[0])
        expected = torch.autograd.functional.hessian(
            lambda y, f=ends(solver): f(y[None]).sum(), Y0[0]
        )
        torch.testing.assert_close(hessian, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", EXACT, ids=name_of)
@pytest.mark.parametrize("solver", BUDGETS, ids=name_of)
def test_a_number_of_steps_is_mapped(solver: NativeSolver, mode: solvers.GradientMode) -> None:
    """Over the samples, and over what the field holds."""
    solver = replace(solver, gradient=mode)
    found = torch.func.vmap(lambda y: ends(solver)(y[None])[0])(Y0)
    torch.testing.assert_close(found, ends(solver)(Y0))
    weights = torch.stack([WEIGHT, 2 * WEIGHT])
    found = torch.func.vmap(lambda w: solver.solve(field_for(solver, w), Y0).y)(weights)
    for weight, y in zip(weights, found, strict=True):
        torch.testing.assert_close(y, solver.solve(field_for(solver, weight), Y0).y)
    learned = LearnedSolver([LearnedMethod.of("explicit", 3)])
    mapped = torch.func.vmap(lambda y: learned.solve(lambda t, y: -y, y[None]).y[0])(Y0.float())
    torch.testing.assert_close(mapped, learned.solve(lambda t, y: -y, Y0.float()).y)


@pytest.mark.parametrize("mode", [*EXACT, BacksolveAdjoint(DormandPrince())], ids=name_of)
@pytest.mark.parametrize("solver", CONTROLLED, ids=name_of)
def test_error_control_is_not_mapped(solver: NativeSolver, mode: solvers.GradientMode) -> None:
    solver = replace(solver, gradient=mode)
    weights = torch.stack([WEIGHT, 2 * WEIGHT])
    words = "give it y0 of shape .* in place of vmap|BacksolveAdjoint does not work under vmap"
    for call in (
        lambda: torch.func.vmap(lambda y: ends(solver)(y[None]))(Y0),
        lambda: torch.func.vmap(ends(solver))(Y0[None]),
        lambda: torch.func.vmap(torch.func.jacrev(lambda y: ends(solver)(y[None])))(Y0),
        lambda: torch.func.vmap(ends(solver, t_eval=[0.5, 1.0]))(Y0[None]),
        lambda: torch.func.vmap(lambda w: solver.solve(field_for(solver, w), Y0).y)(weights),
    ):
        with pytest.raises(ValueError, match=words):
            call()
        with torch.no_grad(), pytest.raises(ValueError, match=words):
            call()


@pytest.mark.parametrize("solver", [BUDGETS[0], BUDGETS[2], BUDGETS[5], CONTROLLED[0]], ids=name_of)
def test_the_adjoint_says_what_it_cannot_do(solver: NativeSolver) -> None:
    final = ends(replace(solver, gradient=BacksolveAdjoint(DormandPrince(**TIGHT))))
    for name in ("vjp", "grad", "jacrev", "jvp", "jacfwd"):
        apply, _ = (REVERSE | FORWARD)[name]
        with pytest.raises(ValueError, match="BacksolveAdjoint does not work under vmap or others"):
            apply(final)
    with pytest.raises(ValueError, match="pulls back one gradient at a time"):
        torch.autograd.functional.jacobian(final, Y0, vectorize=True)
    one_by_one = torch.autograd.functional.jacobian(final, Y0)
    accurate = expected_jacobian(DormandPrince(rtol=1e-10, atol=1e-10))
    torch.testing.assert_close(one_by_one, accurate, rtol=0.0, atol=0.2)  # of few steps


def test_times_within_steps_of_each_sample_are_not_mapped() -> None:
    final = ends(Euler(4), t_eval=[0.5, 1.0])
    with pytest.raises(ValueError, match=r"take equal steps there, step_size=Uniform\(5\)"):
        torch.func.vmap(lambda y: final(y[None]))(Y0)
    mapped = torch.func.vmap(lambda y: ends(BUDGETS[1], [0.5, 1.0])(y[None])[0])(Y0)
    torch.testing.assert_close(mapped, ends(BUDGETS[1], [0.5, 1.0])(Y0))


def test_torchdiffeq_says_what_it_cannot_do() -> None:
    """Its fixed grids are differentiated; vmap, and its adaptive methods in torch.func, are not."""
    fixed, adaptive = solvers.get("rk4"), solvers.get("dopri5", **TIGHT)
    for apply, part in (REVERSE | FORWARD).values():
        torch.testing.assert_close(apply(ends(fixed)), part(expected_jacobian(fixed)))
    words = r"torchdiffeq's '{}' does not work under this transform of torch\.func.*Take a native"
    for solver in (fixed, adaptive):
        for apply, _ in BATCHED.values():
            with pytest.raises(ValueError, match=words.format(solver.method)):  # type: ignore[attr-defined]
                apply(ends(solver))
    for name in ("vjp", "jacrev", "jvp", "jacfwd"):
        with pytest.raises(ValueError, match=words.format("dopri5")):
            (REVERSE | FORWARD)[name][0](ends(adaptive))

    def wrong(t: Tensor, y: Tensor) -> Tensor:
        return y @ torch.ones(7, 7, dtype=y.dtype)

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        torch.func.grad(lambda y: fixed.solve(wrong, y).y.sum())(Y0)
