"""Rosenbrock methods: stiff problems against SciPy's Radau, Jacobians, gradients, coupled rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

import solvers
from solvers import (
    PID,
    Backpropagation,
    BacksolveAdjoint,
    Checkpointing,
    DormandPrince,
    Event,
    GradientScaled,
    JacobianField,
    NativeSolver,
    ParameterisedField,
    Rodas5P,
    Rosenbrock23,
    Tsit5,
    testing,
)
from solvers.methods.rosenbrock_tableaus import RODAS5P, ROSENBROCK23
from tests.versions import needs_compiler

F64 = torch.float64
KINDS: list[type[NativeSolver]] = [Rosenbrock23, Rodas5P]


def vector(*values: float, **options: Any) -> Tensor:
    return torch.tensor(values, dtype=F64, **options)


def van_der_pol(t: Tensor, y: Tensor, mu: Tensor | float = 100.0) -> Tensor:
    x, v = y.unbind(-1)
    return torch.stack((v, mu * (1 - x * x) * v - x), -1)


def robertson(t: Tensor, y: Tensor) -> Tensor:
    a, b, c = y.unbind(-1)
    slow, back, fast = 0.04 * a, 1e4 * b * c, 3e7 * b * b
    return torch.stack((back - slow, slow - back - fast, fast), -1)


def radau(field: Any, y0: Tensor, end: float, rtol: float, atol: float) -> Any:
    def slope(t: float, y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        value: np.ndarray[Any, Any] = field(torch.tensor(t), torch.as_tensor(y)).numpy()
        return value

    return solve_ivp(slope, (0, end), y0.numpy(), method="Radau", rtol=rtol, atol=atol)


def count(stats: solvers.Stats) -> int:
    return int(stats.nfe) + int(stats.jacobians)


# ---- Order and stability -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_order(kind: type[NativeSolver]) -> None:
    """On a field that depends on t, and on that of scaled steps."""
    testing.check_order(kind(8), band=0.05)
    testing.check_order(NativeSolver(8, method=kind().method, step_size=GradientScaled()))


def test_the_published_step() -> None:
    """ode23s as Shampine and Reichelt write it, with W = I - dt d J."""
    d, e, dt = 1 / (2 + 2**0.5), 6 + 2**0.5, 0.3
    t, y = vector(0.4)[0], vector(0.7, -0.2)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((y[..., 1] * torch.cos(t), t * t - 3 * y[..., 0] ** 2), -1)

    slope_in_time = torch.stack((-y[1] * torch.sin(t), 2 * t))
    jacobian = torch.autograd.functional.jacobian(lambda y: field(t, y), y)
    matrix = torch.eye(2, dtype=F64) - dt * d * jacobian
    first = field(t, y)
    k1 = torch.linalg.solve(matrix, first + dt * d * slope_in_time)
    middle = field(t + dt / 2, y + dt / 2 * k1)
    k2 = torch.linalg.solve(matrix, middle - k1) + k1
    y1 = y + dt * k2
    right = field(t + dt, y1) - e * (k2 - middle) - 2 * (k1 - first) + dt * d * slope_in_time
    k3 = torch.linalg.solve(matrix, right)

    method, row = Rosenbrock23().method, y[None]
    result = method.step(field, t, row, dt, first[None])
    torch.testing.assert_close(result.y[0], y1, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(
        method.error(result, dt)[0], dt / 6 * (k1 - 2 * k2 + k3), rtol=1e-12, atol=1e-13
    )
    assert result.last is not None
    torch.testing.assert_close(result.last[0], field(t + dt, y1), rtol=1e-13, atol=1e-13)
    between = method.path(field, row, dt, first[None], result).at(0.3)[0]
    expected = y + dt / (1 - 2 * d) * (0.3 * 0.7 * k1 + 0.3 * (0.3 - 2 * d) * k2)
    torch.testing.assert_close(between, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_of_a_very_fast_decay_goes_to_the_equilibrium(kind: type[NativeSolver]) -> None:
    y = kind(1).solve(lambda t, y: -1e9 * (y - 2.0), vector(1.0, -3.0)[:, None]).y
    torch.testing.assert_close(y, torch.full_like(y, 2.0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_linear_stiff_system(kind: type[NativeSolver], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=F64)).Q
    matrix = turn @ torch.diag(-torch.logspace(-1, 4, 5, dtype=F64)) @ turn.t()
    y0 = torch.randn(3, 5, generator=generator, dtype=F64)
    expected = y0 @ torch.linalg.matrix_exp(2 * matrix).t()
    own = matrix.t().to(dtype)
    solver = kind(rtol=1e-5, atol=1e-6)
    solution = solver.solve(ParameterisedField(lambda t, y: y @ own), y0.to(dtype), (0.0, 2.0))
    assert (solution.y.double() - expected).abs().max() < 2e-4
    assert int(torch.as_tensor(solution.stats.accepted).max()) < 250  # explicitly 10,000


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"c": (0.0, 0.4, 1.0)}, "must lead to its node"),
        ({"time": (0.3, 0.0, -0.3)}, "time must be"),
        ({"b": (3.0, 3.0, 0.0)}, "must be consistent"),
        ({"coupling": ((1.0,),)}, "do not belong to a method of 3 stages"),
        ({"gamma": -1.0}, "gamma must be positive"),
        ({"interpolant": ((0.0,), (0.0,), (0.0,))}, "must sum to the weights b"),
    ],
)
def test_wrong_tableaus_are_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(ROSENBROCK23, **changed)
    assert not RODAS5P.first_same_as_last


# ---- Stiff problems ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_robertson(kind: type[NativeSolver]) -> None:
    y0 = vector(1.0, 0.0, 0.0)
    expected = torch.as_tensor(radau(robertson, y0, 1e5, 1e-11, 1e-16).y[:, -1])
    with torch.no_grad():
        solution = kind(rtol=1e-6, atol=1e-10).solve(robertson, y0, (0.0, 1e5))
    torch.testing.assert_close(solution.y, expected, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_van_der_pol_within_twice_the_work_of_radau(kind: type[NativeSolver]) -> None:
    y0 = vector(2.0, 0.0)
    theirs = radau(van_der_pol, y0, 200.0, 1e-5, 1e-5)
    with torch.no_grad():
        solution = kind(rtol=1e-5, atol=1e-5).solve(van_der_pol, y0, (0.0, 200.0))
    assert count(solution.stats) <= 2 * (theirs.nfev + theirs.njev)
    assert solution.stats.jacobians == solution.stats.accepted + solution.stats.rejected
    expected = torch.as_tensor(radau(van_der_pol, y0, 200.0, 1e-10, 1e-10).y[:, -1])
    torch.testing.assert_close(solution.y, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_solved_as_each_alone_with_times_and_events(kind: type[NativeSolver]) -> None:
    mu = vector(0.5, 20.0, 5.0)
    y0 = vector(2.0, 0.0).repeat(3, 1)
    event = Event(lambda t, y: y[:, 0], direction=-1)
    options: dict[str, Any] = {"t_eval": [0.3, 2.0]}
    with torch.no_grad():
        whole = kind().solve(ParameterisedField(van_der_pol, mu), y0, (0.0, 30.0), **options)
        times = kind().solve(van_der_pol, y0[:1], (0.0, 200.0), event=event).event_time
        for row in range(3):
            part = slice(row, row + 1)
            field = ParameterisedField(van_der_pol, mu[part])
            alone = kind().solve(field, y0[part], (0.0, 30.0), **options)
            torch.testing.assert_close(alone.y, whole.y[part], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(alone.ys, whole.ys[:, part], rtol=1e-9, atol=1e-9)
            for name in ("nfe", "accepted", "jacobians"):
                one, all_of_them = getattr(alone.stats, name), getattr(whole.stats, name)
                assert one.tolist() == all_of_them[part].tolist()
    assert times is not None
    assert abs(float(times) - 81.16) < 0.05  # (3 - 2 log 2) mu / 2 and a little


@pytest.mark.parametrize("kind", KINDS)
def test_backwards_dense_and_from_jump_to_jump(kind: type[NativeSolver]) -> None:
    """y' = sin 3t - y, with a pulse over 0.5 < t < 0.6, in the user's own times."""

    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.sin(3 * t) - y + 10 * ((t > 0.5) & (t < 0.6))

    def jacobian(t: Tensor, y: Tensor) -> Tensor:
        return -torch.ones_like(y).unsqueeze(-1)

    y0 = vector(1.0, 0.3)[:, None]
    tight = DormandPrince(rtol=1e-10, atol=1e-10)
    for own in (JacobianField(field, jacobian), ParameterisedField(field)):
        for span in ((0.0, 2.0), (2.0, 0.0)):
            options: dict[str, Any] = {"jump_times": [0.5, 0.6], "dense": True}
            found = kind(rtol=1e-8, atol=1e-8).solve(own, y0, span, **options)
            expected = tight.solve(own, y0, span, **options)
            assert found.path is not None
            assert expected.path is not None
            for time in (0.3, 0.55, 1.1):
                torch.testing.assert_close(
                    found.path(time), expected.path(time), rtol=1e-4, atol=1e-5
                )
            torch.testing.assert_close(found.y, expected.y, rtol=1e-5, atol=1e-5)
            tries = found.stats.accepted + found.stats.rejected
            assert torch.as_tensor(found.stats.jacobians).tolist() == tries.tolist()


# ---- Jacobians -----------------------------------------------------------------------------------


def jacobian_of_van_der_pol(t: Tensor, y: Tensor, mu: Tensor | float = 100.0) -> Tensor:
    x, v = y.unbind(-1)
    one = torch.ones_like(x)
    rows = (0 * x, one), (-2 * mu * x * v - 1, mu * (1 - x * x))
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [None, 7])
@pytest.mark.parametrize("batch", [False, True])
def test_a_jacobian_of_ones_own(kind: type[NativeSolver], steps: int | None, batch: bool) -> None:
    calls: list[tuple[int, ...]] = []
    evaluations = 0

    def slope(t: Tensor, y: Tensor) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        return van_der_pol(t, y, 5.0)

    def jacobian(t: Tensor, y: Tensor) -> Tensor:
        calls.append(tuple(y.shape))
        return jacobian_of_van_der_pol(t, y, 5.0)

    y0 = vector(2.0, 0.0)
    y0 = torch.stack((y0, y0 + 0.1)) if batch else y0
    solver = kind(steps) if steps else kind()
    found = solver.solve(JacobianField(slope, jacobian, autonomous=True), y0)
    expected = solver.solve(ParameterisedField(van_der_pol, vector(5.0, 5.0)[: len(y0)])
                            if batch else (lambda t, y: van_der_pol(t, y, 5.0)), y0)  # fmt: skip
    torch.testing.assert_close(found.y, expected.y, rtol=1e-10, atol=1e-10)
    jacobians = int(torch.as_tensor(found.stats.jacobians).max())
    assert len(calls) == jacobians
    assert all(shape[-1] == 2 and len(shape) == 1 + batch for shape in calls)
    assert int(torch.as_tensor(found.stats.nfe).max()) == evaluations
    spared = torch.as_tensor(expected.stats.nfe) - torch.as_tensor(found.stats.nfe)
    assert spared.tolist() == torch.as_tensor(found.stats.jacobians).tolist()


def test_a_jacobian_of_ones_own_reaches_every_form_of_a_solve() -> None:
    """Half precision, shared steps, parts of a batch, the derivative in time."""
    mu, y0 = vector(1.0, 3.0, 9.0), vector(2.0, 0.0).repeat(3, 1)
    calls = 0

    def slope(t: Tensor, y: Tensor, mu: Tensor) -> Tensor:
        return van_der_pol(t, y, mu) + torch.sin(3 * t)

    def jacobian(t: Tensor, y: Tensor, mu: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return jacobian_of_van_der_pol(t, y, mu)

    spans = (1.0, 0.5), (0.0, vector(0.5, 0.4, 0.0)), (0.5, 1.0)
    for span in spans:
        calls = 0
        found = Rodas5P(5).solve(JacobianField(slope, jacobian, mu), y0, span).y
        expected = Rodas5P(5).solve(ParameterisedField(slope, mu), y0, span).y
        assert calls == 5
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    for dtype in (F64, torch.bfloat16):
        own = JacobianField(slope, jacobian, mu.to(dtype))
        plain = ParameterisedField(slope, mu.to(dtype))
        for solver in (
            Rosenbrock23(),
            Rosenbrock23(step_size=PID(shared=True)),
            Rodas5P(5),
            Rosenbrock23(gradient=BacksolveAdjoint(Tsit5())),
        ):
            calls = 0
            found = solver.solve(own, y0.to(dtype)).y
            assert calls > 0
            tolerance = 1e-9 if dtype == F64 else 0.05
            expected = solver.solve(plain, y0.to(dtype)).y
            torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_a_wrong_jacobian_is_refused() -> None:
    y0 = torch.ones(3, 2)
    for value, words in (
        (lambda t, y: y, r"must return shape \(3, 2, 2\) .* It returned \(3, 2\)"),
        (lambda t, y: torch.zeros(3, 2, 2, dtype=F64), "returned .* torch.float64"),
        (lambda t, y: 1.0, "must return a tensor, not 1.0"),
    ):
        with pytest.raises(ValueError, match=words):
            Rosenbrock23().solve(JacobianField(lambda t, y: -y, value), y0)
    with pytest.raises(ValueError, match=r"shape \(2, 2\) .* element of the state"):
        Rosenbrock23().solve(JacobianField(lambda t, y: -y, lambda t, y: y), y0[0])
    with pytest.raises(ValueError, match="jacobian must be callable"):
        JacobianField(lambda t, y: -y, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dense Jacobian of a sample, and it has 2049 elements"):
        Rosenbrock23().solve(lambda t, y: -y, torch.ones(1, 2049))


def test_a_field_that_differentiates_by_itself() -> None:
    """A Hamiltonian one: x'' = -sin x."""

    def field(t: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            y = y if y.requires_grad else y.detach().requires_grad_()
            energy = y[:, 1].square() / 2 - torch.cos(y[:, 0])
            (slope,) = torch.autograd.grad(energy.sum(), y, create_graph=True)
        return torch.stack((slope[:, 1], -slope[:, 0]), 1)

    y0 = vector(1.0, 0.5)[None]
    for mode in (torch.no_grad, torch.enable_grad):
        with mode():
            y = Rodas5P(rtol=1e-8, atol=1e-8).solve(field, y0).y
    expected = DormandPrince(rtol=1e-9, atol=1e-9).solve(field, y0).y
    torch.testing.assert_close(y.detach(), expected.detach(), rtol=1e-6, atol=1e-6)


# ---- Coupled rows --------------------------------------------------------------------------------


def ring(t: Tensor, y: Tensor) -> Tensor:
    return 50 * (y.roll(1, 0) - 2 * y + y.roll(-1, 0)) - y**3 * torch.cos(t)


def gated_ring(t: Tensor, y: Tensor) -> Tensor:
    """Coupled from t = 0.3 on alone."""
    return torch.where(t > 0.3, ring(t, y), -y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inference", [False, True])
def test_coupled_rows_with_a_number_of_steps(kind: type[NativeSolver], inference: bool) -> None:
    """Solved as one system, which is what the state as one sample is."""
    y0 = torch.linspace(-1, 1, 12, dtype=F64).view(4, 3)
    with torch.inference_mode(inference):
        rows = kind(12).solve(ring, y0.clone())
        whole = kind(12).solve(lambda t, y: ring(t, y[0])[None], y0[None])
    torch.testing.assert_close(rows.y, whole.y[0], rtol=1e-11, atol=1e-11)
    assert rows.stats == whole.stats
    with pytest.raises(ValueError, match="depend on each other"):
        kind().solve(ring, y0)
    shared = kind(step_size=PID(1e-7, 1e-7, shared=True)).solve(ring, y0)
    torch.testing.assert_close(shared.y, kind(200).solve(ring, y0).y, rtol=1e-3, atol=1e-4)


def test_rows_that_come_to_depend_on_each_other() -> None:
    y0 = torch.linspace(-1, 1, 12, dtype=F64).view(4, 3)
    found = Rosenbrock23(64).solve(gated_ring, y0).y
    expected = Rosenbrock23(64).solve(lambda t, y: gated_ring(t, y[0])[None], y0[None]).y[0]
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


# ---- Gradients -----------------------------------------------------------------------------------


def driven(t: Tensor, y: Tensor, weight: Tensor, rate: Tensor) -> Tensor:
    return torch.tanh(y @ weight) * torch.cos(rate * t) - rate * y + torch.sin(rate * t)


def leaves() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight, y0 = (torch.randn(2, 2, generator=generator, dtype=F64) for _ in range(2))
    return [x.requires_grad_() for x in (weight, vector(3.0)[0], y0)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gradient", [Backpropagation(), Checkpointing()], ids=repr)
def test_gradients_against_finite_differences(
    kind: type[NativeSolver], gradient: solvers.GradientMode
) -> None:
    def final(weight: Tensor, rate: Tensor, y0: Tensor) -> Tensor:
        solver = kind(2, gradient=gradient)
        return solver.solve(lambda t, y: driven(t, y, weight, rate), y0).y

    assert torch.autograd.gradcheck(final, leaves())
    if gradient == Backpropagation():
        weight, rate, y0 = leaves()
        plain = [weight.detach(), y0.detach()]
        torch.autograd.gradgradcheck(lambda rate: final(plain[0], rate, plain[1]), rate)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_a_stiff_solve(kind: type[NativeSolver]) -> None:
    """Of the rates of Robertson's reactions, by tolerance, against differences of tight solves."""
    rates = vector(0.04, 1e4, 3e7).requires_grad_()

    def field(t: Tensor, y: Tensor) -> Tensor:
        a, b, c = y.unbind(-1)
        slow, back, fast = rates[0] * a, rates[1] * b * c, rates[2] * b * b
        return torch.stack((back - slow, slow - back - fast, fast), -1)

    y = kind(rtol=1e-6, atol=1e-10).solve(field, vector(1.0, 0.0, 0.0), (0.0, 40.0)).y
    (found,) = torch.autograd.grad(y[0], rates)
    for index in range(3):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                own = rates.detach().clone()
                own[index] *= 1 + sign * 1e-4
                k1, k2, k3 = own.tolist()

                def moved(t: Tensor, y: Tensor, k1=k1, k2=k2, k3=k3) -> Tensor:  # type: ignore[no-untyped-def]
                    a, b, c = y.unbind(-1)
                    back = k2 * b * c
                    parts = (back - k1 * a, k1 * a - back - k3 * b * b, k3 * b * b)
                    return torch.stack(parts, -1)

                tight = Rodas5P(rtol=1e-9, atol=1e-13)
                ends.append(tight.solve(moved, vector(1.0, 0.0, 0.0), (0.0, 40.0)).y[0])
        expected = (ends[0] - ends[1]) / (2e-4 * rates.detach()[index])
        torch.testing.assert_close(found[index], expected, rtol=2e-3, atol=0.0)


def test_nothing_of_a_graph_is_left_where_no_gradient_is_asked_for() -> None:
    y0 = torch.ones(2, 2)
    for solver in (Rosenbrock23(), Rodas5P(3)):
        assert not solver.solve(lambda t, y: -y * torch.cos(t), y0).y.requires_grad
        with torch.no_grad():
            y = solver.solve(lambda t, y: -y, y0.clone().requires_grad_()).y
        assert not y.requires_grad


# ---- Where it is refused, and transforms ---------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_is_refused_at_construction(kind: type[NativeSolver]) -> None:
    with pytest.raises(ValueError, match="Jacobians, which compiled=True cannot compile"):
        kind(compiled=True)
    with pytest.raises(ValueError, match=r"BacksolveAdjoint\(solver=solvers\.DormandPrince\(\)\)"):
        kind(gradient=BacksolveAdjoint())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's own, on the first use of jvp
@pytest.mark.parametrize("kind", KINDS)
def test_transforms(kind: type[NativeSolver]) -> None:
    weight, rate, y0 = (x.detach() for x in leaves())

    def final(weight: Tensor, y0: Tensor = y0) -> Tensor:
        return kind(3).solve(lambda t, y: driven(t, y, weight, rate), y0).y

    stacked = torch.stack((weight, 2 * weight))
    expected = torch.stack([final(each) for each in stacked])
    torch.testing.assert_close(torch.func.vmap(final)(stacked), expected, rtol=1e-10, atol=1e-10)
    jacobian = torch.autograd.functional.jacobian(final, weight)
    torch.testing.assert_close(torch.func.jacrev(final)(weight), jacobian)
    _, tangent = torch.func.jvp(final, (weight,), (torch.ones_like(weight),))
    torch.testing.assert_close(tangent, jacobian.sum((2, 3)))
    with torch.inference_mode():
        torch.testing.assert_close(final(weight), expected[0])


@needs_compiler
def test_a_number_of_steps_under_a_compiler() -> None:
    weight, rate, y0 = (x.detach() for x in leaves())
    field = ParameterisedField(lambda t, y: driven(t, y, weight, rate))

    def final(y: Tensor) -> Tensor:
        return Rosenbrock23(2).solve(field, y).y

    torch.compiler.reset()
    compiled = torch.compile(final, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(y0), final(y0))
    torch.compiler.reset()
