"""What replaces or wraps a layer of a cell takes effect, or is refused with the remedy."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from liquid_ode.cells import LiquidCell, RecurrentCell, WiredLinear, Wiring
from liquid_ode.cells.wiring.masks import Wired
from tests.cells.ordinary_cells import CELLS, close, holder, inputs, made, of_every_layer

RANK = 2
LAYERS = of_every_layer()


class Adapter(nn.Module):
    """A layer kept as it is, and a trained map of low rank beside it, as of LoRA in peft."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base_layer = base.requires_grad_(False)
        weight = base.get_parameter("weight")
        (outputs, size), around = weight.shape[:2], weight.shape[2:]
        self.down: nn.Module
        self.up: nn.Module
        if around:
            self.down = nn.Conv2d(size, RANK, around[0], padding=around[0] // 2, bias=False)
            self.up = nn.Conv2d(RANK, outputs, 1, bias=False)
        else:
            self.down = nn.Linear(size, RANK, bias=False)
            self.up = nn.Linear(RANK, outputs, bias=False)
        self.to(weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.base_layer(x) + self.up(self.down(x))
        return result

    def merged(self) -> Tensor:
        """The weight of one layer that does the same."""
        up, down = self.up.get_parameter("weight"), self.down.get_parameter("weight")
        return self.base_layer.get_parameter("weight") + torch.einsum(
            "or,r...->o...", up.flatten(1), down
        )


def replaced(cell: RecurrentCell, layer: str, by: Any) -> Any:
    """Put what ``by`` makes of a layer in its place."""
    module, name = holder(cell, layer)
    new = by(getattr(module, name))
    if isinstance(module, nn.Sequential):
        module[int(name)] = new
    else:
        setattr(module, name, new)
    return new


@pytest.mark.parametrize(("name", "layer"), LAYERS)
def test_an_adapter_around_a_layer_is_trained(name: str, layer: str) -> None:
    cell = made(name)
    x = inputs(cell)
    if isinstance(cell.get_submodule(layer), Wired):
        adapter = replaced(cell, layer, Adapter)
        words = f"{holder(cell, layer)[1]} was replaced by a Adapter.*parametriz.*WiredLinear"
        with pytest.raises(ValueError, match=words):
            cell(x[0])
        return
    adapter = replaced(cell, layer, Adapter)
    merged = {f"{layer}.weight": adapter.merged()}
    states = torch.func.functional_call(made(name), merged, (x,), {"durations": 1.0})
    close(cell.sequence(x), states)
    trained = [adapter.up.weight, adapter.down.weight]
    found = torch.autograd.grad(cell.sequence(x).square().sum(), trained)
    expected = torch.autograd.grad(states.square().sum(), trained)
    for gradient, wanted in zip(found, expected, strict=True):
        close(gradient, wanted)
        assert wanted.abs().max() > 0


@pytest.mark.parametrize(("name", "layer"), LAYERS)
def test_a_layer_in_another_is_called(name: str, layer: str) -> None:
    cell = made(name)
    if isinstance(cell.get_submodule(layer), Wired):
        pytest.skip("refused, as above")
    x = inputs(cell)
    expected = cell.sequence(x)
    replaced(cell, layer, lambda base: nn.Sequential(base, nn.Identity()))
    close(cell.sequence(x), expected)
    replaced(cell, layer, lambda base: nn.Sequential(base, nn.Threshold(1e9, 0.0)))  # zeros
    nothing = {
        f"{layer}.{own}": 0 * value
        for own, value in made(name).get_submodule(layer).named_parameters()
    }
    states = torch.func.functional_call(made(name), nothing, (x,), {"durations": 1.0})
    close(cell.sequence(x), states)


@pytest.mark.parametrize(("name", "layer"), LAYERS)
def test_hooks_on_a_layer_fire_and_have_a_say(name: str, layer: str) -> None:
    cell = made(name)
    x = inputs(cell).requires_grad_()
    plain = cell.sequence(x)
    seen: list[str] = []
    module = cell.get_submodule(layer)
    module.register_forward_pre_hook(lambda *_: seen.append("pre"))
    module.register_full_backward_hook(lambda *_: seen.append("backward"))
    handle = module.register_forward_hook(lambda *_: seen.append("forward"))
    close(cell.sequence(x), plain)
    cell.sequence(x).sum().backward()
    assert set(seen) == {"pre", "forward", "backward"}
    handle.remove()
    module.register_forward_hook(lambda _, args, output: output + 1)
    own = made(name)
    bias = {f"{layer}.bias": own.get_parameter(f"{layer}.bias") + 1}
    close(cell.sequence(x), torch.func.functional_call(own, bias, (x,), {"durations": 1.0}))


def quantised(cell: RecurrentCell) -> RecurrentCell:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch means to move this to another package
        return torch.ao.quantization.quantize_dynamic(cell, {nn.Linear})


@pytest.mark.parametrize("name", [name for name in CELLS if "conv" not in name])
def test_dynamic_quantisation_takes_effect(name: str) -> None:
    cell = made(name, torch.float32).eval()
    x = inputs(cell, dtype=torch.float32)
    plain = cell.sequence(x)
    small = quantised(cell)
    for own, layer in cell.named_modules():
        if type(layer) is nn.Linear:
            assert "quantized" in type(small.get_submodule(own)).__module__
    states = small.sequence(x)
    linears = any(type(module) is nn.Linear for module in cell.modules())
    assert torch.equal(states, plain) != linears
    torch.testing.assert_close(states, plain, rtol=0, atol=0.05)


def test_the_weight_of_a_wired_layer_is_adapted_within_the_wiring() -> None:
    wiring = Wiring.random(5, sparsity=0.4, input_size=3)
    assert wiring.inputs is not None

    class Plus(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.more = nn.Parameter(torch.ones(5, 3))

        def forward(self, weight: Tensor) -> Tensor:
            return weight + self.more

    cell = LiquidCell(3, 5, wiring=wiring)
    expected = LiquidCell(3, 5, wiring=wiring)
    expected.load_state_dict(cell.state_dict())
    with torch.no_grad():
        expected.inputs.weight.add_(wiring.inputs.float())
    plus = Plus()
    parametrize.register_parametrization(cell.inputs, "weight", plus)
    x = torch.randn(2, 3)
    torch.testing.assert_close(cell(x), expected(x))
    (gradient,) = torch.autograd.grad(cell(x).sum(), plus.more)
    assert torch.equal(gradient != 0, wiring.inputs)


def test_a_wired_layer_of_ones_own() -> None:
    mask = torch.tensor([[1, 0, 1], [0, 1, 1]]).bool()
    torch.manual_seed(0)
    layer = WiredLinear(3, 2, mask)
    assert torch.equal(layer.weight != 0, mask)
    x = torch.randn(4, 3)
    expected = layer(x)
    with torch.no_grad():
        layer.weight[~mask] = 7.0
    torch.testing.assert_close(layer(x), expected)
    layer.reset_parameters()
    assert torch.equal(layer.weight != 0, mask)
    assert not list(WiredLinear(3, 2, torch.ones(2, 3).bool()).buffers())
    with pytest.raises(ValueError, match=r"must have shape \(2, 3\), not \(3, 2\)"):
        WiredLinear(3, 2, mask.t())


@pytest.mark.parametrize("layer", ["backbone.0", "ff1", "time_a"])
def test_a_layer_without_a_bias_takes_the_place_of_one_with(layer: str) -> None:
    cell = made("cfc")
    x = inputs(cell)

    def bare(base: nn.Linear) -> nn.Linear:
        new = nn.Linear(base.in_features, base.out_features, bias=False).double()
        new.weight = base.weight
        return new

    replaced(cell, layer, bare)
    other = made("cfc")
    with torch.no_grad():
        other.get_parameter(f"{layer}.bias").zero_()
    close(cell.sequence(x), other.sequence(x))


def test_folded_products_are_those_of_the_called_parts() -> None:
    for name in ("cfc", "cfc, pure", "cfc, wired, no gate"):
        cell = made(name)
        x = inputs(cell, 7, 2)
        folded = cell.sequence(x)
        for module in cell.modules():
            module.register_forward_hook(lambda *_: None)
        close(cell.sequence(x), folded)
        durations = 0.1 + torch.rand(7, 2).double()
        close(cell.sequence(x, None, durations), made(name).sequence(x, None, durations))
