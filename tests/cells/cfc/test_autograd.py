"""CfC cells and what else autograd is asked for: in-place edits, autocast, forward derivatives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from liquid_ode.cells.cfc.cell import CfCCell
from liquid_ode.cells.cfc.forms import CfCForm, GatedForm, NoGateForm, PureForm
from liquid_ode.cells.network.rnn import LiquidRNN

FORMS = [GatedForm(), NoGateForm(), PureForm()]
INPUT, HIDDEN, BATCH = 3, 4, 2


def made(**options: Any) -> CfCCell:
    torch.manual_seed(0)
    return CfCCell(INPUT, HIDDEN, backbone_units=5, **options).double()


def random(*shape: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_states_may_be_changed_in_place(form: CfCForm, steps: int) -> None:
    """0 steps: a call of the cell itself."""
    cell = made(form=form)
    rnn = LiquidRNN(INPUT, HIDDEN, cell=lambda *_: cell)
    x = random(BATCH, steps, INPUT) if steps else random(BATCH, INPUT)
    calls = [lambda: cell(x)] if steps == 0 else [lambda: rnn(x)[0], lambda: cell.sequence(x)]
    leaves = list(cell.parameters())
    for call in calls:
        h = call()
        mask = (random(*h.shape) > 0).double()
        h *= mask
        other = call() * mask
        torch.testing.assert_close(h, other)
        found, expected = (torch.autograd.grad(y.square().sum(), leaves) for y in (h, other))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
        with torch.no_grad():
            h = call()
        h += 1
        torch.testing.assert_close(h, call() + 1)


def test_an_initial_state_changed_in_place_is_refused() -> None:
    cell, h0 = made(), random(BATCH, HIDDEN)
    loss = cell.sequence(random(2, BATCH, INPUT), h0).sum()
    h0.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's own, on the first use of jvp
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("recorded", [False, True])
def test_dual_numbers(form: CfCForm, recorded: bool) -> None:
    cell = made(form=form).requires_grad_(recorded)
    x, h0 = random(4, BATCH, INPUT), random(BATCH, HIDDEN)
    tangent = torch.ones_like(x)
    _, expected = torch.func.jvp(lambda x: cell.sequence(x, h0), (x,), (tangent,))
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(cell.sequence(forward_ad.make_dual(x, tangent), h0)).tangent
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's own, on the first use of jvp
def test_batches_and_tangents_of_gradients() -> None:
    cell = made()
    x = random(4, BATCH, INPUT).requires_grad_()
    states = cell.sequence(x)
    grads = random(3, *states.shape)
    each = [torch.autograd.grad(states, x, grad, retain_graph=True)[0] for grad in grads]
    (found,) = torch.autograd.grad(states, x, grads, is_grads_batched=True, retain_graph=True)
    torch.testing.assert_close(found, torch.stack(each), rtol=1e-12, atol=1e-13)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(grads[0], grads[1])
        value, tangent = forward_ad.unpack_dual(torch.autograd.grad(states, x, dual)[0])
    torch.testing.assert_close(value, each[0], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(tangent, each[1], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "options",
    [{}, {"backbone_layers": 2}, {"activation": nn.SiLU}, {"form": PureForm()}],
    ids=["default", "two_layers", "silu", "pure"],
)
def test_gradients_of_a_long_sequence_in_half_precision(options: dict[str, Any]) -> None:
    """Added up in bfloat16 over these steps, they would be off by half."""
    cell = made(**options).bfloat16()
    x = random(1000, BATCH, INPUT).bfloat16()

    def gradients(x: Tensor) -> list[Tensor]:
        loss = cell.sequence(x).double().square().mean()
        return [grad.double() for grad in torch.autograd.grad(loss, list(cell.parameters()))]

    found = gradients(x)
    cell.double()
    for one, other in zip(found, gradients(x.double()), strict=True):
        assert (one - other).norm() < 0.03 * other.norm()
