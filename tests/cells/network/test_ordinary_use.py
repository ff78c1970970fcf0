"""What a torch.nn.GRU is put through by those who use one, with every kind of cell."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from liquid_ode import CfCCell, LiquidRNN, LTCCell, MotorReadout, WiredCfCCell, Wiring
from solvers import DormandPrince, Heun

WIRING = Wiring.auto_ncp(3, 8, 2)
KINDS: dict[str, dict[str, Any]] = {
    "liquid": {},
    "heun": {"solver": Heun(2)},
    "tolerance": {"solver": DormandPrince()},
    "ltc": {"cell": LTCCell},
    "cfc": {"cell": CfCCell},
    "wired": {"cell": WiredCfCCell, "wiring": WIRING},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind: str, **options: Any) -> LiquidRNN:
    torch.manual_seed(0)
    return LiquidRNN(3, 8, **KINDS[kind], **options)


def timing(batch: int, steps: int) -> tuple[Tensor, Tensor]:
    """Durations and resets."""
    return torch.rand(batch, steps), torch.rand(batch, steps) < 0.3


@every_kind
def test_no_samples_have_gradients_of_zero(kind: str) -> None:
    """As torch.nn.GRU: where work is shared out, a part may be empty, and has to answer."""
    rnn = make(kind, bidirectional=True)
    for given in ((None, None, None), (torch.zeros(2, 0, 8), *timing(0, 5)), (None, 0.5, None)):
        out, h_n = rnn(torch.zeros(0, 5, 3), *given)
        assert (out.shape, h_n.shape) == ((0, 5, 16), (2, 0, 8))
        rnn.zero_grad()
        (out.sum() + h_n.sum()).backward()
        for name, parameter in rnn.named_parameters():
            assert parameter.grad is not None, name
            assert not parameter.grad.any(), name


@every_kind
def test_a_single_step(kind: str) -> None:
    rnn = make(kind)
    x, (durations, resets) = torch.randn(4, 6, 3), timing(4, 6)
    out, h_n = rnn(x[:, :1], None, durations[:, :1], resets[:, :1])
    assert torch.equal(out[:, 0], h_n[0])
    whole, _ = rnn(x, None, durations, resets)
    torch.testing.assert_close(out, whole[:, :1])


@every_kind
def test_inputs_that_are_views(kind: str) -> None:
    rnn = make(kind)
    x, h0 = torch.randn(3, 6, 4).permute(2, 1, 0), torch.randn(8, 4, 1).permute(2, 1, 0)
    torch.testing.assert_close(rnn(x, h0), rnn(x.contiguous(), h0.contiguous()))
    learned = torch.randn(1, 1, 8, requires_grad=True)  # the same state for all samples
    rnn(x, learned.expand(1, 4, 8))[0].sum().backward()
    assert learned.grad is not None


@every_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(kind: str, dtype: torch.dtype) -> None:
    rnn = make(kind)
    x, (durations, resets) = torch.randn(4, 6, 3), timing(4, 6)
    expected, _ = rnn(x, None, durations, resets)
    out, h_n = rnn.to(dtype)(x.to(dtype), None, durations, resets)
    assert out.dtype == h_n.dtype == dtype
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)
    out.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in rnn.parameters())  # type: ignore


@every_kind
def test_made_without_memory(kind: str) -> None:
    with torch.device("meta"):
        rnn = make(kind)
    assert {parameter.device.type for parameter in rnn.parameters()} == {"meta"}
    rnn.to_empty(device="cpu")
    for module in rnn.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert rnn(torch.randn(2, 4, 3))[0].isfinite().all()


@every_kind
def test_deterministic_algorithms_and_inference_before_training(kind: str) -> None:
    rnn = make(kind, bidirectional=True)
    x, (durations, resets) = torch.randn(4, 6, 3), timing(4, 6)
    packed = pack_padded_sequence(x, torch.tensor([2, 6, 1, 4]), True, enforce_sorted=False)
    with torch.inference_mode():
        expected = rnn(packed, None, durations, resets)[0].data
    torch.use_deterministic_algorithms(True)
    try:
        out, _ = rnn(packed, None, durations, resets)
        out.data.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(out.data, expected)


def test_circuits_in_several_layers() -> None:
    with pytest.raises(ValueError, match=r"takes 3 inputs, but the layers take \[3, 8, 8\]: give"):
        LiquidRNN(3, 8, 3, cell=LTCCell, wiring=WIRING)
    wirings = [Wiring.auto_ncp(size, 8, 2) for size in (3, 8)]
    rnn = LiquidRNN(3, 8, 2, cell=LTCCell, wiring=wirings, projection=MotorReadout(wirings[-1]))
    assert rnn(torch.randn(2, 4, 3))[0].shape == (2, 4, 2)
    assert len(LiquidRNN(8, 8, 2, cell=LTCCell, wiring=wirings[-1]).cells) == 2
    assert len(LiquidRNN(3, 8, 2, wiring=Wiring.random(8, sparsity=0.5)).cells) == 2
