"""A liquid cell over sequences; against the cell itself, a step and a sample at a time."""

from __future__ import annotations

import copy
import functools
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from liquid_ode import LiquidCell, LiquidRNN, Wiring
from solvers import Euler, ExponentialEuler, Heun, Uniform
from tests.cells.network.rnn_cells import (
    BATCH,
    HIDDEN,
    INPUT,
    LENGTH,
    MapCell,
    PlainCell,
    close,
    make,
    problem,
)


@pytest.mark.parametrize("solver", [None, Euler(steps=3, step_size=Uniform()), Heun(steps=2)])
def test_a_sequence_is_the_cell_step_by_step(solver: Any) -> None:
    rnn = make(solver=solver)
    x, durations = problem()
    out, h_n = rnn(x, durations=durations)
    state = None
    for step in range(LENGTH):
        state = rnn.cells[0](x[:, step], state, duration=durations[:, step, None])
        close(out[:, step], state)
    assert torch.equal(h_n[0], out[:, -1])
    assert rnn.cells[0].solver == (solver or LiquidCell(1, 1).solver)


@pytest.mark.parametrize("batch", [1, HIDDEN])
def test_durations_do_not_mix_samples(batch: int) -> None:
    rnn = make(num_layers=2, bidirectional=True)
    x, durations = problem(HIDDEN, LENGTH)
    whole, h_n = rnn(x, durations=durations)
    part, h_part = rnn(x[:batch], durations=durations[:batch])
    close(part, whole[:batch])
    close(h_part, h_n[:, :batch])
    alone = torch.stack([rnn(x[i], durations=durations[i])[0] for i in range(HIDDEN)])
    close(alone, whole)


def test_the_backward_direction_is_a_cell_on_the_reversed_sequence() -> None:
    rnn = make(bidirectional=True)
    x, durations = problem()
    out, h_n = rnn(x, durations=durations)
    one = make()
    one.cells[0].load_state_dict(rnn.cells[1].state_dict())
    back, end = one(x.flip(1), durations=durations.flip(1))
    close(out[..., HIDDEN:], back.flip(1))
    close(h_n[1], end[0])


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("with_durations", [False, True])
def test_a_stream_gives_the_same_numbers(chunk: int, with_durations: bool) -> None:
    rnn = make(num_layers=2, projection=4)
    x, durations = problem()
    given = durations if with_durations else None
    out, h_n = rnn(x, durations=given)
    parts, h = [], None
    for start in range(0, LENGTH, chunk):
        times = given if given is None else given[:, start : start + chunk]
        part, h = rnn(x[:, start : start + chunk], h, times)
        parts.append(part)
    close(torch.cat(parts, dim=1), out)
    close(h, h_n)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "projection": 2}])
def test_a_permutation_of_the_batch_permutes_the_outputs(options: dict[str, Any]) -> None:
    rnn = make(**options)
    x, durations = problem(16, 9)
    order = torch.randperm(16)
    out, h_n = rnn(x, durations=durations)
    # Close, not equal: a kernel may round a row by its place.
    turned = rnn(x[order], durations=durations[order])
    close(turned, (out[order], h_n[:, order]))


@pytest.mark.parametrize("projection", [None, 2, nn.Sequential(nn.Linear(10, 6), nn.Tanh())])
def test_the_last_state(projection: Any) -> None:
    if isinstance(projection, nn.Module):
        projection = copy.deepcopy(projection).double()
    rnn = make(num_layers=2, bidirectional=True, projection=projection)
    assert rnn.projection is projection or isinstance(rnn.projection, nn.Linear)
    project = rnn.projection or nn.Identity()
    x, durations = problem()
    h0 = torch.randn(4, BATCH, HIDDEN, dtype=torch.float64)
    out, h_n = rnn(x, h0, durations)
    last, h_last = rnn.last(x, h0, durations)
    close(h_last, h_n)
    close(last, project(torch.cat([h_n[2], h_n[3]], dim=1)))
    alone, h_alone = rnn.last(x[1], h0[:, 1], durations[1])
    close((alone, h_alone), (last[1], h_n[:, 1]))
    rnn.projection = None
    bare, _ = rnn(x, h0, durations)
    close(out, project(bare))
    close(
        torch.cat([bare[:, -1, :HIDDEN], bare[:, 0, HIDDEN:]], dim=1), rnn.last(x, h0, durations)[0]
    )


@pytest.mark.parametrize("bidirectional", [False, True])
def test_cells_on_maps(bidirectional: bool) -> None:
    torch.manual_seed(0)
    directions = 2 if bidirectional else 1
    rnn = LiquidRNN(
        3,
        4,
        2,
        cell=MapCell,
        bidirectional=bidirectional,
        projection=nn.Conv2d(4 * directions, 2, 1),
    ).double()
    x, durations = problem(3, 5, (3, 6, 7))
    h0 = torch.randn(2 * directions, 3, 4, 6, 7, dtype=torch.float64)
    out, h_n = rnn(x, h0, durations)
    assert out.shape == (3, 5, 2, 6, 7)
    assert h_n.shape == h0.shape
    last, _ = rnn.last(x, h0, durations)
    close(last, rnn.projection(torch.cat(h_n[-directions:].unbind(), dim=1)))
    # A pixel is a sample of its own to this cell, so a cell on vectors is the oracle.
    flat = LiquidRNN(3, 4, 2, cell=PlainCell, bidirectional=bidirectional).double()
    state = {key: value.squeeze() for key, value in rnn.state_dict().items()}
    flat.load_state_dict({key: value for key, value in state.items() if key.startswith("cells")})
    _, expected = flat(
        x.permute(0, 3, 4, 1, 2).flatten(0, 2),
        h0.permute(0, 1, 3, 4, 2).flatten(1, 3),
        durations.repeat_interleave(42, dim=0),
    )
    close(h_n, expected.unflatten(1, (3, 6, 7)).permute(0, 1, 4, 2, 3))
    alone, h_alone = rnn(x[1], h0[:, 1], durations[1])
    close((alone, h_alone), (out[1], h_n[:, 1]))
    packed, h_packed = rnn(pack_sequence([x[0], x[1, :2]]), h0[:, :2], durations[:2])
    assert packed.data.shape == (7, 2, 6, 7)
    close(h_packed[:, 0], h_n[:, 0])
    close(h_packed[:, 1], rnn(x[1, :2], h0[:, 1], durations[1, :2])[1])


def test_a_cell_without_solver_and_wiring() -> None:
    rnn = make(cell=PlainCell, num_layers=2)
    x, durations = problem()
    out, _ = rnn(x, durations=durations)
    assert out.shape == (BATCH, LENGTH, HIDDEN)
    with pytest.raises(ValueError, match=r"cell=PlainCell cannot be called as .*solver=\.\.\."):
        make(cell=PlainCell, solver=Euler())
    with pytest.raises(ValueError, match=r"cell=PlainCell cannot be called as .*wiring=\.\.\."):
        make(cell=PlainCell, wiring=Wiring.full(HIDDEN))


def test_options_of_the_cell() -> None:
    cell = functools.partial(LiquidCell, tau_hidden=9, solver=ExponentialEuler(steps=2))
    rnn = make(cell=cell, num_layers=2)
    assert [part.tau_mlp[0].out_features for part in rnn.cells] == [9, 9]
    assert rnn.cells[1].solver == ExponentialEuler(steps=2)
    assert make(cell=cell, solver=Heun(2)).cells[0].solver == Heun(2)


def test_wirings() -> None:
    one, other = (Wiring.random(HIDDEN, sparsity=0.5, seed=seed) for seed in (0, 1))

    def of(wiring: Any) -> list[Any]:
        return [cell.wiring for cell in make(num_layers=2, bidirectional=True, wiring=wiring).cells]

    assert of(one) == [one] * 4
    assert of([one, other]) == [one, one, other, other]
    assert of((None, other)) == [None, None, other, other]
    with pytest.raises(ValueError, match="3 wirings were given for 2 layers"):
        of([one] * 3)
    with pytest.raises(ValueError, match="wiring must be a Wiring"):
        of(torch.ones(HIDDEN, HIDDEN))
    with pytest.raises(ValueError, match="4 units"):
        of([one, Wiring.full(4)])


def test_gradients_reach_every_parameter() -> None:
    rnn = make(num_layers=2, bidirectional=True, projection=2)
    x, durations = problem()
    durations.requires_grad_()
    h0 = torch.zeros(4, BATCH, HIDDEN, dtype=torch.float64, requires_grad=True)
    out, _ = rnn(x, h0, durations)
    out.square().sum().backward()
    for name, parameter in [*rnn.named_parameters(), ("h0", h0), ("durations", durations)]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_gradients_are_right() -> None:
    rnn = make(num_layers=2, bidirectional=True, solver=Euler(2, step_size=Uniform()))
    x, durations = problem(2, 3)
    durations[0, 1] = 0.5
    h0 = torch.randn(4, 2, HIDDEN, dtype=torch.float64, requires_grad=True)
    tensors = (x.requires_grad_(), h0, durations.requires_grad_())
    assert torch.autograd.gradcheck(rnn, tensors, fast_mode=True)


def test_saved_and_copied(tmp_path: Path) -> None:
    rnn = make(num_layers=2, bidirectional=True, projection=2)
    x, durations = problem()
    expected, _ = rnn(x, durations=durations)
    torch.save(rnn.state_dict(), tmp_path / "weights.pt")
    torch.manual_seed(9)
    other = LiquidRNN(INPUT, HIDDEN, 2, bidirectional=True, projection=2).double()
    assert not torch.equal(other(x, durations=durations)[0], expected)
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    for same in (other, copy.deepcopy(rnn), pickle.loads(pickle.dumps(rnn))):
        assert torch.equal(same(x, durations=durations)[0], expected)


def test_device_and_dtype() -> None:
    rnn = LiquidRNN(INPUT, HIDDEN, 2, projection=2, device="meta", dtype=torch.float64)
    assert {(p.device.type, p.dtype) for p in rnn.parameters()} == {("meta", torch.float64)}
    own = nn.Linear(HIDDEN, 2)
    rnn = LiquidRNN(INPUT, HIDDEN, projection=own, dtype=torch.float64)
    assert rnn.cells[0].recurrent.dtype == torch.float64
    assert own.weight.dtype == torch.float32
