"""What replaces a parameter of a cell takes effect, in every cell and for every parameter."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from liquid_ode.cells import LiquidCell, LiquidRNN, RecurrentCell
from tests.cells.ordinary_cells import BATCH, CELLS, HIDDEN, INPUTS, close, holder, inputs, made

every_cell = pytest.mark.parametrize("name", CELLS)


def matrices(cell: RecurrentCell) -> list[str]:
    return [name for name, parameter in cell.named_parameters() if parameter.ndim > 1]


def with_values(cell: RecurrentCell, values: dict[str, Tensor]) -> Callable[..., Tensor]:
    """The states of a copy of the cell with these values of parameters; their graph goes on."""
    other = copy.deepcopy(cell)

    def states(x: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(other, values, (x,), {"durations": 1.0})
        return found

    return states


def by_hand(cell: RecurrentCell, name: str, change: Callable[[Tensor], Tensor]) -> RecurrentCell:
    """A copy of the cell, one of whose parameters was changed."""
    other = copy.deepcopy(cell)
    with torch.no_grad():
        parameter = other.get_parameter(name)
        parameter.copy_(change(parameter))
    return other


@every_cell
def test_functional_call_takes_other_parameters(name: str) -> None:
    cell = made(name)
    x = inputs(cell)
    halved = {own: 0.5 * value.detach() for own, value in cell.named_parameters()}
    other = copy.deepcopy(cell)
    other.load_state_dict(halved)
    close(torch.func.functional_call(cell, halved, (x[0],)), other(x[0]))
    close(with_values(cell, halved)(x), other.sequence(x))


@every_cell
def test_an_ensemble_by_vmap_over_stacked_parameters(name: str) -> None:
    torch.manual_seed(0)
    cells = [CELLS[name](INPUTS, HIDDEN).double() for _ in range(3)]
    parameters, buffers = torch.func.stack_module_state(cells)
    x = inputs(cells[0], BATCH)

    def one(own: dict[str, Tensor], masks: dict[str, Tensor]) -> Tensor:
        state: Tensor = torch.func.functional_call(cells[0], (own, masks), (x,))
        return state

    states = torch.vmap(one)(parameters, buffers)
    close(states, torch.stack([cell(x) for cell in cells]))
    loss = states.square().sum()
    found = torch.autograd.grad(loss, list(parameters.values()))
    for own, gradient in zip(parameters, found, strict=True):
        for cell, expected in zip(cells, gradient, strict=True):
            (by_itself,) = torch.autograd.grad(cell(x).square().sum(), cell.get_parameter(own))
            close(by_itself, expected)


@every_cell
def test_pruning_takes_effect_also_while_training(name: str) -> None:
    for own, _ in made(name).named_parameters():
        cell = made(name)
        module, attribute = holder(cell, own)
        x = inputs(cell)
        prune.random_unstructured(module, attribute, 0.5)
        mask = getattr(module, f"{attribute}_mask")
        original = getattr(module, f"{attribute}_orig")
        for step in (0.0, 0.1):
            with torch.no_grad():
                original.add_(step)
            expected = by_hand(made(name), own, lambda _, new=original * mask: new)
            parameter = expected.get_parameter(own)
            (gradient,) = torch.autograd.grad(cell.sequence(x).square().sum(), original)
            (wanted,) = torch.autograd.grad(expected.sequence(x).square().sum(), parameter)
            close(gradient, wanted * mask)
        again = pickle.loads(pickle.dumps(cell))
        close(again.sequence(x), expected.sequence(x))
        prune.remove(module, attribute)
        close(cell(x[0]), expected(x[0]))
        assert own in dict(cell.named_parameters())


class Halved(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return 0.5 * values


@every_cell
def test_a_parametrization_takes_effect(name: str) -> None:
    for own, _ in made(name).named_parameters():
        cell = made(name)
        x = inputs(cell)
        expected = by_hand(cell, own, lambda values: 0.5 * values)
        module, attribute = holder(cell, own)
        parametrize.register_parametrization(module, attribute, Halved())
        close(cell(x[0]), expected(x[0]))
        states = copy.deepcopy(cell).sequence(x)
        close(states, expected.sequence(x))
        original = module.parametrizations[attribute].original
        (found,) = torch.autograd.grad(cell.sequence(x).square().sum(), original)
        parameter = expected.get_parameter(own)
        (wanted,) = torch.autograd.grad(expected.sequence(x).square().sum(), parameter)
        close(found, 0.5 * wanted)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("new", [False, True])
@every_cell
def test_weight_norm_splits_a_weight_in_two_that_get_gradients(name: str, new: bool) -> None:
    for own in matrices(made(name)):
        cell = made(name)
        x = inputs(cell)
        plain = cell.sequence(x)
        module, attribute = holder(cell, own)
        if new:
            parametrizations.weight_norm(module, attribute)
            halves = module.parametrizations[attribute]
            length, direction = halves.original0, halves.original1
        else:
            nn.utils.weight_norm(module, attribute)
            length, direction = (getattr(module, f"{attribute}_{end}") for end in "gv")
        close(cell.sequence(x), plain)
        with torch.no_grad():
            length.mul_(0.7)

        axes = tuple(range(1, direction.ndim))
        norms = direction.square().sum(axes, keepdim=True).sqrt()
        states = with_values(made(name), {own: length * direction / norms})(x)
        expected = torch.autograd.grad(states.square().sum(), (length, direction))
        found = torch.autograd.grad(cell.sequence(x).square().sum(), (length, direction))
        for gradient, wanted in zip(found, expected, strict=True):
            close(gradient, wanted)
            assert wanted.abs().max() > 0


@pytest.mark.parametrize("new", [False, True])
@every_cell
def test_spectral_norm_holds_in_the_states(name: str, new: bool) -> None:
    for own in matrices(made(name)):
        cell = made(name)
        x = inputs(cell, 1, 2)
        expected = by_hand(
            cell, own, lambda values: values / torch.linalg.matrix_norm(values.flatten(1), 2)
        )
        module, attribute = holder(cell, own)
        kind = parametrizations.spectral_norm if new else nn.utils.spectral_norm
        kind(module, attribute, n_power_iterations=200)
        found, wanted = cell.sequence(x), expected.sequence(x)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


class WeightDrop(nn.Module):
    """Zeroes entries of a weight at random before each call, as AWD-LSTM does (fastai's)."""

    def __init__(self, module: nn.Module, holds: nn.Module, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name
        self.holds = [holds]  # not a part of this one
        values = getattr(holds, name)
        delattr(holds, name)
        self.raw = nn.Parameter(values.detach())
        setattr(holds, name, values.detach().clone())

    def forward(self, *args: Tensor) -> Tensor:
        setattr(self.holds[0], self.name, F.dropout(self.raw, 0.5, self.training))
        states: Tensor = self.module(*args)
        return states


@every_cell
def test_a_weight_that_is_dropped_out_before_each_call(name: str) -> None:
    for own, _ in made(name).named_parameters():
        cell = made(name)
        x = inputs(cell, BATCH)
        module, attribute = holder(cell, own)
        wrapped = WeightDrop(cell, module, attribute)
        for seed in range(2):
            torch.manual_seed(seed)
            state = wrapped(x)
            torch.manual_seed(seed)
            dropped = F.dropout(wrapped.raw, 0.5)
            plain = made(name)
            expected = torch.func.functional_call(plain, {own: dropped}, (x,))
            close(state, expected)
            (found,) = torch.autograd.grad(state.square().sum(), wrapped.raw)
            (wanted,) = torch.autograd.grad(expected.square().sum(), wrapped.raw)
            close(found, wanted)


def test_a_weight_of_a_network_is_dropped_out() -> None:
    torch.manual_seed(0)
    rnn = LiquidRNN(INPUTS, HIDDEN).double()
    cell = rnn.cells[0]
    assert isinstance(cell, LiquidCell)
    x = torch.randn(BATCH, 3, INPUTS, dtype=torch.float64)
    plain = rnn(x)[0]
    wrapped = WeightDrop(rnn, cell, "recurrent")
    assert (wrapped(x)[0] - plain).abs().max() > 1e-3
    close(wrapped.eval()(x)[0], plain)


@every_cell
def test_values_are_not_drawn_in_vain(name: str) -> None:
    cell = made(name)
    if not hasattr(cell, "reset_parameters"):
        pytest.skip("a cell of cells")
    cell.reset_parameters()
    for own, _ in made(name).named_parameters():
        cell = made(name)
        module, attribute = holder(cell, own)
        parametrize.register_parametrization(module, attribute, Halved())
        with pytest.raises(ValueError, match=f"{attribute} of .* no parameter any more.* undo"):
            cell.reset_parameters()  # type: ignore[operator]
