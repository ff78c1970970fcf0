"""Compiled steps of error-controlled solves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvers import ETDRK4, PID, DormandPrince, Euler, HeunEuler, ParameterisedField
from solvers.loop import step as trial
from tests.solvers.fields import liquid_field
from tests.versions import needs_compiler


def without_a_c_compiler(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """The steps as traced, run by PyTorch: what is tested is that they can be traced."""
    traced = torch.compile(trial._try_anew, dynamic=True, backend=backend, fullgraph=True)
    monkeypatch.setattr(trial, "_compiled", lambda: traced)


def slope(t: Tensor, y: Tensor, rates: Tensor) -> Tensor:
    return torch.cos(t) - rates * y


@needs_compiler
def test_the_same_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    without_a_c_compiler(monkeypatch, "aot_eager")
    rates = torch.logspace(-1, 1.5, 6, dtype=torch.float64)[:, None]
    y0 = torch.ones(6, 2, dtype=torch.float64)
    with torch.no_grad():
        plain, compiled = (
            HeunEuler(step_size=PID(1e-6, 1e-6), compiled=compiled).solve(
                ParameterisedField(slope, rates), y0, (0.0, 3.0), t_eval=[0.7, 3.0]
            )
            for compiled in (False, True)
        )
    torch.testing.assert_close(compiled.y, plain.y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(compiled.ys, plain.ys, rtol=1e-12, atol=1e-12)
    assert compiled.stats.nfe.tolist() == plain.stats.nfe.tolist()  # type: ignore[union-attr]


def test_gradients_go_through_steps_that_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_compiled", None)
    rates = torch.tensor([[0.5], [2.0]], dtype=torch.float64, requires_grad=True)
    solver = DormandPrince(step_size=PID(1e-9, 1e-9), compiled=True)
    y = solver.solve(lambda t, y: -rates * y, torch.ones(2, 1, dtype=torch.float64)).y
    (grad,) = torch.autograd.grad(y.sum(), rates)
    torch.testing.assert_close(grad, -torch.exp(-rates.detach()), rtol=1e-7, atol=1e-7)


@needs_compiler
def test_semilinear_methods_and_liquid_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    without_a_c_compiler(monkeypatch, "eager")  # a quarter of the time
    field = liquid_field(seed=0, batch=3, hidden=4, tau=(0.5, 2.0))
    y0 = torch.zeros_like(field.drive)
    plain = ETDRK4(step_size=PID(1e-3, 1e-3))
    compiled = ETDRK4(step_size=PID(1e-3, 1e-3), compiled=True)
    with torch.no_grad():
        found, expected = compiled.solve(field, y0), plain.solve(field, y0)
    torch.testing.assert_close(found.y, expected.y, rtol=1e-12, atol=1e-12)
    assert found.stats.nfe.tolist() == expected.stats.nfe.tolist()  # type: ignore[union-attr]


def test_a_budget_is_compiled_with_the_model() -> None:
    with pytest.raises(ValueError, match=r"compiled with the model around it: torch\.compile"):
        Euler(compiled=True)
