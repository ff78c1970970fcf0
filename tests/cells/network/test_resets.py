"""Resets: a state that starts anew inside a sequence, as if every episode were run by itself."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from liquid_ode import (
    CfCCell,
    ConvLiquidCell,
    LiquidCell,
    LiquidRNN,
    LTCCell,
    MixedMemoryCell,
    PureForm,
    RecurrentCell,
    WiredCfCCell,
    Wiring,
)
from solvers import DormandPrince, Euler, Heun, Uniform
from tests.cells.network.rnn_cells import (
    BATCH,
    HIDDEN,
    INPUT,
    LENGTH,
    PlainCell,
    close,
    make,
    problem,
)
from tests.versions import needs_compiler

CELLS = {
    "liquid": LiquidCell,
    "equal steps": functools.partial(LiquidCell, solver=Euler(2, step_size=Uniform())),
    "heun": functools.partial(LiquidCell, solver=Heun(2)),
    "tolerance": functools.partial(LiquidCell, solver=DormandPrince(rtol=1e-7)),
    "ltc": LTCCell,
    "cfc": CfCCell,
    "pure": functools.partial(CfCCell, form=PureForm()),
    "wired": functools.partial(WiredCfCCell, wiring=Wiring.auto_ncp(INPUT, HIDDEN, 2)),
    "mixed": functools.partial(MixedMemoryCell, cell=LiquidCell),
    "own": PlainCell,
}
LAYERS = {"num_layers": 2, "bidirectional": True}
OPTIONS: dict[str, dict[str, Any]] = {
    "both directions": LAYERS,
    "recomputed": LAYERS | {"recompute": True},
    "time first": {"batch_first": False},
}


def resets_of(batch: int = BATCH, length: int = LENGTH) -> Tensor:
    """Some, of which one is at the first step, two follow each other, and a sample has none."""
    resets = torch.zeros(batch, length, dtype=torch.bool)
    resets[0, 3] = resets[1, 0] = resets[1, 4] = resets[2, 2] = resets[2, 3] = True
    return resets


def one_by_one(
    rnn: LiquidRNN, x: Tensor, h0: Tensor | None, durations: Tensor | None, resets: Tensor
) -> tuple[Tensor, Tensor]:
    """Every episode of a sample ``(T, I)`` by itself: outputs and h_n."""
    steps = len(x)
    cuts = [0, *(t for t in range(1, steps) if resets[t]), steps]
    directions = 2 if rnn.bidirectional else 1
    outs, ends = [], []
    for begin, end in itertools.pairwise(cuts):
        start = torch.zeros(len(rnn.cells), *rnn.cells[0].state_shape(x.shape[1:]), dtype=x.dtype)
        if h0 is not None and begin == 0 and not resets[0]:
            start[::directions] = h0[::directions]
        if h0 is not None and end == steps and directions == 2:
            start[1::2] = h0[1::2]
        times = None if durations is None else durations[begin:end]
        out, h_n = rnn(x[begin:end], start, times)
        outs.append(out)
        ends.append(h_n)
    h_n = ends[-1].clone()  # forwards, the last episode's
    if directions == 2:
        h_n[1::2] = ends[0][1::2]
    return torch.cat(outs), h_n


def expected_of(
    rnn: LiquidRNN, x: Tensor, h0: Tensor | None, durations: Tensor | None, resets: Tensor
) -> tuple[Tensor, Tensor]:
    """The same of a batch, batch first."""
    found = [
        one_by_one(
            rnn,
            x[i],
            None if h0 is None else h0[:, i],
            None if durations is None else durations[i],
            resets[i],
        )
        for i in range(len(x))
    ]
    return torch.stack([out for out, _ in found]), torch.stack([h for _, h in found], dim=1)


@pytest.mark.parametrize("with_start", [False, True])
@pytest.mark.parametrize(
    ("kind", "options"),
    [*((kind, "both directions") for kind in CELLS),
     *((kind, "recomputed") for kind in ("liquid", "cfc", "own")),
     ("liquid", "time first")],
)  # fmt: skip
def test_episodes_are_as_if_alone(kind: str, options: str, with_start: bool) -> None:
    """Outputs, last states and all gradients; with durations and a state, and without."""
    given = OPTIONS[options]
    if kind in {"wired", "tolerance"}:
        given = {"bidirectional": True}
    rnn = make(cell=CELLS[kind], **given)
    x, durations = problem()
    state = rnn.cells[0].state_shape((INPUT,))
    h0 = torch.randn(len(rnn.cells), BATCH, *state, dtype=torch.float64, requires_grad=True)
    leaves = [x.requires_grad_(), *([h0] if with_start else [])]
    times, start = (durations, h0) if with_start else (None, None)
    resets = resets_of()
    results = []
    for alone in (False, True):
        if alone:
            out, h_n = expected_of(rnn, x, start, times, resets)
        else:
            turn = (lambda a: a) if rnn.batch_first else (lambda a: a.transpose(0, 1))
            out, h_n = rnn(turn(x), start, times if times is None else turn(times), turn(resets))
            out = turn(out)
        loss = out.sin().sum() + h_n.cos().sum()
        results.append((out, h_n, *torch.autograd.grad(loss, [*leaves, *rnn.parameters()])))
    slack = 1e5 if kind == "tolerance" else 1.0
    torch.testing.assert_close(*results, rtol=1e-10 * slack, atol=1e-12 * slack)


def test_maps() -> None:
    torch.manual_seed(0)
    rnn = LiquidRNN(2, 3, cell=ConvLiquidCell, bidirectional=True).double()
    x, durations = problem(3, LENGTH, (2, 4, 5))
    resets = resets_of()[:3]
    h0 = torch.randn(2, 3, 3, 4, 5, dtype=torch.float64)
    close(rnn(x, h0, durations, resets), expected_of(rnn, x, h0, durations, resets))


@pytest.mark.parametrize("given", ["packed", "column", "padded", "longer"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("cell", [LiquidCell, PlainCell])
def test_packed_sequences(cell: Any, batch_first: bool, given: str) -> None:
    rnn = make(cell=cell, batch_first=batch_first, **LAYERS)
    x, durations = problem()
    resets, lengths = resets_of(), torch.tensor([3, 7, 4, 5])
    h0 = torch.randn(4, BATCH, HIDDEN, dtype=torch.float64)

    def packed(values: Tensor) -> Any:
        return pack_padded_sequence(values, lengths, batch_first=True, enforce_sorted=False)

    anew: Any = packed(resets)
    if given == "column":
        anew = anew._replace(data=anew.data[:, None])
    elif given != "packed":
        more = torch.ones(BATCH, 2 if given == "longer" else 0, dtype=torch.bool)
        anew = torch.cat([resets, more], dim=1)
        anew = anew if batch_first else anew.t()
    out, h_n = rnn(packed(x), h0, packed(durations), anew)
    padded, _ = pad_packed_sequence(out, batch_first=True)
    rnn.batch_first = True
    for i, n in enumerate(lengths.tolist()):
        expected = one_by_one(rnn, x[i, :n], h0[:, i], durations[i, :n], resets[i, :n])
        close((padded[i, :n], h_n[:, i]), expected)


@pytest.mark.parametrize("kind", ["liquid", "ltc", "cfc", "own"])
def test_other_forms(kind: str) -> None:
    rnn = make(cell=CELLS[kind], num_layers=2)
    x, _ = problem()
    resets = resets_of()
    expected = rnn(x, resets=resets)
    close(rnn(x, resets=resets[..., None]), expected)
    alone, h_n = rnn(x[0], resets=resets[0])
    close((alone, h_n), (expected[0][0], expected[1][:, 0]))
    of_all = rnn(x, resets=resets[0])  # (T,)
    close(of_all, rnn(x, resets=resets[:1].expand(BATCH, LENGTH)))
    close(rnn.last(x, resets=resets), (expected[0][:, -1], expected[1]))
    close(rnn(x, resets=torch.zeros_like(resets)), rnn(x))
    for number in (0.0, 0.5):
        close(rnn(x, None, number, resets), rnn(x, None, torch.full((LENGTH,), number), resets))


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("kind", ["liquid", "ltc", "cfc", "own"])
def test_a_stream_gives_the_same_numbers(kind: str, chunk: int) -> None:
    """Also where a chunk begins with a reset; and the gradient is that within a chunk."""
    rnn = make(cell=CELLS[kind], num_layers=2)
    x, durations = problem()
    resets = resets_of()
    whole, h_n = rnn(x, None, durations, resets)
    parts, h = [], None
    for begin in range(0, LENGTH, chunk):
        part = slice(begin, begin + chunk)
        out, h = rnn(x[:, part], h, durations[:, part], resets[:, part])
        h = h.detach()
        parts.append(out)
    close(torch.cat(parts, dim=1), whole)
    close(h, h_n)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", CELLS)
def test_no_gradient_crosses_a_reset(kind: str, recompute: bool) -> None:
    rnn = make(cell=CELLS[kind], recompute=recompute)
    x, durations = problem()
    resets = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    resets[0, 4] = resets[1, 0] = True
    h0 = torch.randn(1, BATCH, *rnn.cells[0].state_shape((INPUT,)), dtype=torch.float64)
    leaves = (x.requires_grad_(), h0)
    leaves[1].requires_grad_()
    out, h_n = rnn(x, leaves[1], durations.add(0.1).requires_grad_(), resets)
    of_x, of_h0 = torch.autograd.grad(out[:, 4:].sum() + h_n.sum(), leaves)
    assert torch.equal(of_x[0, :4], torch.zeros_like(of_x[0, :4]))
    assert of_x[0, 4:].ne(0).all()
    assert of_x[1:].ne(0).all()
    assert torch.equal(of_h0[0, :2], torch.zeros_like(of_h0[0, :2]))
    assert of_h0[0, 2:].ne(0).all()


@pytest.mark.parametrize("kind", ["liquid", "ltc", "tolerance", "cfc", "pure", "wired", "own"])
def test_a_failed_state_is_not_looked_at_where_it_is_reset(kind: str) -> None:
    rnn = make(cell=CELLS[kind])
    x, resets = problem()[0], torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    h0 = torch.randn(1, BATCH, HIDDEN, dtype=torch.float64)
    h0[0, 1] = torch.nan
    resets[1, 0] = True
    for steps in (1, LENGTH):
        given = x[:, :steps], h0, None, resets[:, :steps]
        close(rnn(*given), rnn(x[:, :steps], h0.nan_to_num(0.0)))
        with pytest.raises(ValueError, match="h0 must be finite, but is nan in sample 1"):
            rnn(*given[:-1])


class Halved(LiquidCell):
    """Changes what its class does, and knows of no resets."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:  # type: ignore[override]
        return super().flow(0.5 * x, h0, duration)


def test_a_flow_that_knows_of_no_resets_is_called_for_each_part() -> None:
    x, durations = problem()
    resets = resets_of()
    close(make(cell=Halved)(x, None, durations, resets), make()(0.5 * x, None, durations, resets))


@pytest.mark.parametrize("kind", ["liquid", "heun", "ltc", "cfc", "wired"])
def test_a_sequence_is_not_cut_for_the_cells_here(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps one at a time would take several times as long."""
    lengths: list[int] = []
    rnn = make(cell=CELLS[kind])
    cell = rnn.cells[0]
    name = "fields" if hasattr(cell, "fields") else "flow"
    whole = getattr(cell, name)

    @functools.wraps(whole)
    def watched(x: Tensor, *arguments: Any, **more: Any) -> Any:
        lengths.append(x.shape[0])
        return whole(x, *arguments, **more)

    monkeypatch.setattr(cell, name, watched)
    rnn(problem()[0], resets=resets_of())
    assert lengths == [LENGTH]


@needs_compiler
@pytest.mark.parametrize("kind", ["equal steps", "cfc"])
def test_export_and_compile(kind: str) -> None:
    torch.manual_seed(0)
    rnn = LiquidRNN(INPUT, HIDDEN, cell=CELLS[kind])
    x, resets = torch.randn(BATCH, 4, INPUT), resets_of()[:, :4]
    expected = rnn(x, resets=resets)
    module = torch.export.export(rnn, (x,), {"resets": torch.zeros_like(resets)}).module()
    torch.testing.assert_close(module(x, resets=resets), expected, rtol=1e-5, atol=1e-6)
    torch._dynamo.reset()
    compiled = torch.compile(rnn, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, resets=resets), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", [LiquidCell, MixedMemoryCell])
def test_durations_and_resets_of_each_sample_under_vmap(cell: type[RecurrentCell]) -> None:
    torch.manual_seed(0)
    rnn = LiquidRNN(3, 6, cell=cell)
    x, durations, resets = torch.randn(2, 4, 5, 3), torch.rand(2, 4, 5), torch.rand(2, 4, 5) < 0.3

    def run(x: Tensor, durations: Tensor, resets: Tensor) -> Tensor:
        return rnn(x, durations=durations, resets=resets)[0]

    alone = torch.stack([run(*each) for each in zip(x, durations, resets, strict=True)])
    torch.testing.assert_close(torch.vmap(run)(x, durations, resets), alone)
