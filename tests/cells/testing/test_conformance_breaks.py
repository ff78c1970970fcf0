"""The shipped conformance suite for cells: what is broken fails it, check by check."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from liquid_ode.cells import CfCCell, LiquidCell, LiquidField, LTCCell, Wiring, testing
from liquid_ode.cells.liquid.cell import VectorTarget
from liquid_ode.cells.liquid.conv import ConvLiquidCell
from solvers import Euler, Pullback, SolverError, Uniform


def rejects(check: Callable[..., None], make: testing.Make, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check(make)


def test_a_cell_that_is_whole_passes_and_check_cell_finds_one_that_is_not() -> None:
    testing.check_cell(LiquidCell)
    for broken in (Flat, Wide, Trusting, Secretive, Centred, Placed, Foresighted, Late):
        with pytest.raises(AssertionError):
            testing.check_cell(broken)
    for broken in (Detached, DriftingCell):
        with pytest.raises(AssertionError):
            testing.check_cell(broken)


class Flat(LiquidCell):
    def forward(self, x: Tensor, h0: Tensor | None = None, **more: Any) -> Tensor:
        return super().forward(x, h0, **more).reshape(-1, self.hidden_size)


class Awake(LiquidCell):
    """Does not start at rest."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        return super().flow(x, x.new_ones(x.shape[1], self.hidden_size) if h0 is None else h0, 1.0)


class Hasty(LiquidCell):
    def forward(
        self, x: Tensor, h0: Tensor | None = None, *, duration: Any = 0.5, durations: Any = None
    ) -> Tensor:
        return super().forward(x, h0, duration=duration, durations=durations)


class Last(LiquidCell):
    """Gives the last state of a sequence alone."""

    def sequence(self, *given: Any) -> Tensor:
        return super().sequence(*given)[-1:]


def test_wrong_shapes_and_defaults_fail() -> None:
    rejects(testing.check_shapes, Flat, r"give states of shape \(5,\), not \(1, 5\)")
    rejects(testing.check_shapes, Awake, "start at zero for 1")
    rejects(testing.check_shapes, Hasty, "start at zero for 1")
    rejects(testing.check_shapes, Last, r"give states of shape \(3, 2, 5\), not \(1, 2, 5\)")


class Wide(LiquidCell):
    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        return super().flow(x, h0, duration).double()


class Coarse(LiquidCell):
    """Float32 is rounded to bfloat16."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        states = super().flow(x, h0, duration)
        return states.bfloat16().to(x.dtype) if x.dtype == torch.float32 else states


class Coarsest(LiquidCell):
    """Under autocast, states are whole numbers."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        states = super().flow(x, h0, duration)
        return states.round() if torch.is_autocast_enabled("cpu") else states


class Unfed(LiquidCell):
    """Under autocast, keeps the recurrent weights from their gradient."""

    def fields(self, x: Tensor, durations: Tensor | None = None) -> Sequence[LiquidField]:
        fields = super().fields(x, durations)
        if torch.is_autocast_enabled("cpu"):
            return [LiquidField(x.recurrent.detach(), x.drive, x.rate) for x in fields]
        return fields


def test_wrong_dtypes_fail() -> None:
    rejects(testing.check_dtypes, Wide, "give states of torch.float32, not torch.float64")
    rejects(testing.check_dtypes, Coarse, "be as accurate as the dtype")
    rejects(testing.check_dtypes, Coarsest, "under autocast to bfloat16, .* stay close to float32")
    rejects(testing.check_dtypes, Unfed, "give recurrent a gradient")


class Trusting(LiquidCell):
    """Does not look at its arguments."""

    def sequence(
        self, x: Tensor, h0: Tensor | None = None, durations: Tensor | None = None
    ) -> Tensor:
        times = 1.0 if durations is None else durations.reshape(*x.shape[:2], 1)
        return self.flow(x, h0, times)


class Positive(LiquidCell):
    def forward(
        self, x: Tensor, h0: Tensor | None = None, *, duration: Any = 1.0, durations: Any = None
    ) -> Tensor:
        return super().forward(x, h0, duration=abs(duration), durations=durations)


class Mute(LiquidCell):
    def forward(self, *given: Any, **more: Any) -> Tensor:
        try:
            return super().forward(*given, **more)
        except ValueError:
            raise ValueError("something is wrong") from None


def test_bad_input_that_is_not_refused_fails() -> None:
    rejects(testing.check_bad_input, Trusting, r"should raise a ValueError .*, not RuntimeError")
    rejects(testing.check_bad_input, Positive, "'duration' .*'duration': -1.0.*raises nothing")
    rejects(testing.check_bad_input, Mute, "should say 'x must have shape' .*something is wrong")


class Sweeping(LiquidCell):
    """Resets every sample where one is reset."""

    def flow(
        self,
        x: Tensor,
        h0: Tensor | None,
        duration: float | Tensor,
        resets: Tensor | None = None,
    ) -> Tensor:
        if resets is not None:
            resets = resets.any(1, keepdim=True).expand_as(resets)
        return super().flow(x, h0, duration, resets)


class Stubborn(LiquidCell):
    """Takes resets, and leaves them."""

    def flow(
        self,
        x: Tensor,
        h0: Tensor | None,
        duration: float | Tensor,
        resets: Tensor | None = None,
    ) -> Tensor:
        return super().flow(x, None if h0 is None else h0.nan_to_num(0.0), duration)


class Multiplying(LiquidCell):
    """A NaN times zero is a NaN."""

    def flow(
        self,
        x: Tensor,
        h0: Tensor | None,
        duration: float | Tensor,
        resets: Tensor | None = None,
    ) -> Tensor:
        if resets is not None and h0 is not None:
            return super().flow(x, h0 * ~resets[0], duration, resets.logical_and(resets[0] * 0 < 0))
        return super().flow(x, h0, duration)


class Leaking(LiquidCell):
    """The states of an episode are its own, their gradients are not."""

    def flow(
        self,
        x: Tensor,
        h0: Tensor | None,
        duration: float | Tensor,
        resets: Tensor | None = None,
    ) -> Tensor:
        states = super().flow(x, h0, duration, resets)
        return states if resets is None else states + (x.sum() - x.sum().detach())


def test_resets_that_are_none_fail() -> None:
    for broken in (Sweeping, Stubborn):
        rejects(testing.check_resets, broken, "give every episode the states it gets alone")
    with pytest.raises(SolverError, match="NaN"):
        testing.check_resets(Multiplying)
    rejects(testing.check_resets, Leaking, "no gradient should go from after a reset to before")


class Secretive(LiquidCell):
    """Made of more than its parameters."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.secret = float(torch.rand(()))

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        return super().flow(x * self.secret, h0, duration)


class Tiring(LiquidCell):
    """Remembers that it was called."""

    calls = 0

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        self.calls += 1
        return super().flow(x / self.calls, h0, duration)


class Renamed(LiquidCell):
    """Another one has other names."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.register_parameter(f"p{id(self)}", nn.Parameter(torch.zeros(1)))


def test_cells_that_cannot_be_copied_fail() -> None:
    class Local(LiquidCell):
        pass

    rejects(testing.check_copies, Local, "cannot be copied or pickled")
    rejects(testing.check_copies, Secretive, "after load_state_dict, .* the same states")
    rejects(testing.check_copies, Tiring, "the same states when it is called again")
    rejects(testing.check_copies, Renamed, "load each other's state_dict")


class Squeezing(LiquidCell):
    """Takes durations (B,) for those of the features, as ncps does: silently where B = H."""

    def fields(self, x: Tensor, durations: Tensor | None = None) -> Sequence[LiquidField]:
        fields = super().fields(x)
        if durations is not None:
            for field, time in zip(fields, durations, strict=True):
                field.rate = field.rate * time.squeeze()
        return fields


class Centred(LiquidCell):
    """Mixes the samples of a batch, as batch normalisation does."""

    def fields(self, x: Tensor, durations: Tensor | None = None) -> Sequence[LiquidField]:
        return super().fields(x - 0.1 * x.mean(1, keepdim=True), durations)


class FirstOnly(LiquidCell):
    """Every sample lives by the duration of the first."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        if isinstance(duration, Tensor):
            duration = duration[:, :1].expand_as(duration)
        return super().flow(x, h0, duration)


class Units(LiquidCell):
    """Numbers are seconds, tensors are minutes."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        return super().flow(x, h0, duration * 60 if isinstance(duration, Tensor) else duration)


class CentredMaps(ConvLiquidCell):
    def fields(self, x: Tensor, durations: Tensor | None = None) -> Any:
        return super().fields(x - 0.1 * x.mean(1, keepdim=True), durations)


def test_samples_that_depend_on_each_other_fail() -> None:
    for broken in (Squeezing, Centred, CentredMaps):
        words = "in a batch of 5 should get the state it gets from .* alone, for its own duration"
        rejects(testing.check_batch_independence, broken, words)
    rejects(testing.check_batch_independence, FirstOnly, "for its own duration")
    rejects(testing.check_batch_independence, Units, "a duration as a number and as a tensor")


class Placed(LiquidCell):
    """Its last digits depend on the place of a sample in its batch, by more than kernels do."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        places = torch.arange(x.shape[1], dtype=x.dtype).unsqueeze(1)
        return super().flow(x * (1 + 32 * torch.finfo(x.dtype).eps * places), h0, duration)


class Neighbourly(LiquidCell):
    """Every sample sees a little of the one before it in the batch."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        return super().flow(x + 1e-4 * x.roll(1, 1), h0, duration)


def test_states_that_depend_on_the_place_in_the_batch_fail() -> None:
    testing.check_batch_independence(Placed)
    rejects(testing.check_permutation, Placed, "a batch in another order; in torch.float32 with 32")
    rejects(testing.check_permutation, Neighbourly, r"they differ by .*, more than \d")


class Foresighted(LiquidCell):
    """Sees the whole sequence at once."""

    def fields(self, x: Tensor, durations: Tensor | None = None) -> Sequence[LiquidField]:
        return super().fields(x - 0.1 * x.mean(0), durations)


class Forgetful(LiquidCell):
    """Begins a sequence at rest."""

    def sequence(
        self, x: Tensor, h0: Tensor | None = None, durations: Tensor | None = None
    ) -> Tensor:
        return super().sequence(x, None, durations)


def test_sequences_that_differ_from_their_steps_fail() -> None:
    rejects(testing.check_streaming, Foresighted, "with durations, one step at a time")
    rejects(testing.check_streaming, Forgetful, "with durations, one step at a time")


class Late(LiquidCell):
    """Time goes on by itself."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        return super().flow(x, h0, duration + 1e-9)


class Warped(LiquidCell):
    """Time is another after the first step."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        return super().flow(x, h0, duration**2)


class OneStep(LiquidCell):
    """Has a solver, and does without."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        fields = self.fields(x, duration if isinstance(duration, Tensor) else None)
        h = torch.zeros_like(fields[0].drive) if h0 is None else h0
        states = []
        for field in fields:
            slope = field(h.new_zeros(()), h)
            h = h + (slope if isinstance(duration, Tensor) else duration * slope)
            states.append(h)
        return torch.stack(states)


class OneEulerStep(OneStep):
    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.solver = Euler(step_size=Uniform(1))


class Rooted(LiquidCell):
    """Right at a duration of zero, but with no slope there."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        return super().flow(x, h0, duration**0.5)


class Shrinking(LiquidCell):
    """The gradient of a state shrinks, whatever the duration."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        if h0 is not None:
            h0 = h0.detach() + 0.9 * (h0 - h0.detach())
        return super().flow(x, h0, duration)


class Instant(CfCCell):
    """A closed form that takes a duration of zero for a short one."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        tiny = 1e-300
        if isinstance(duration, Tensor):
            return super().flow(x, h0, duration.clamp_min(tiny))
        return super().flow(x, h0, max(duration, tiny))


def test_wrong_durations_fail() -> None:
    rejects(testing.check_durations, Instant, r"duration of 0.0 should leave .*, more than 0\b")
    rejects(testing.check_durations, Rooted, "should be finite where durations are zero")
    rejects(testing.check_durations, Shrinking, "the gradient of a state of .* be left alone")
    rejects(testing.check_durations, Late, r"duration of 0.0 should leave .*, more than 0\b")
    rejects(testing.check_durations, Warped, r"as many solves of .*\.field\(x\) over these spans")
    rejects(testing.check_durations, OneStep, "as many solves")
    words = "accurate solver, the states .* should be those of one long solve"
    rejects(testing.check_durations, OneEulerStep, words)


class Detached(LiquidCell):
    """Durations of a sequence get no gradient."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        if isinstance(duration, Tensor):
            duration = duration.detach()
        return super().flow(x, h0, duration)


class _Off:
    """A gradient of the recurrent weights that is a hundredth too large."""

    def __init__(self, exact: Pullback) -> None:
        self.pull, self.exact = exact.pull, exact

    def gradients(self) -> tuple[Tensor, ...]:
        recurrent, drive = self.exact.gradients()
        return 1.01 * recurrent, drive


class _OffTarget(VectorTarget):
    def pullback(self) -> Pullback:
        return _Off(super().pullback())


class _OffField(LiquidField):
    kind = _OffTarget


class WrongByHand(LiquidCell):
    """Its gradient is written by hand, and wrong."""

    def fields(self, x: Tensor, durations: Tensor | None = None) -> Sequence[LiquidField]:
        return [
            _OffField(field.recurrent, field.drive, field.rate)
            for field in super().fields(x, durations)
        ]


class Idle(LiquidCell):
    """A parameter that nothing uses."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.idle = nn.Parameter(torch.ones(1))


class Dead(Idle):
    """A parameter that changes nothing."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        return super().flow(x, h0, duration) + 0 * self.idle


class Graphic(LiquidCell):
    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        with torch.enable_grad():
            return super().flow(x, h0, duration)


class Graphless(LiquidCell):
    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        with torch.no_grad():
            return super().flow(x, h0, duration)


class TwoFaced(LiquidCell):
    """Computes something else where no gradient is asked for."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        return super().flow(x if torch.is_grad_enabled() else 1.001 * x, h0, duration)


class _Squares(torch.autograd.Function):
    """Keeps what its gradient needs where the next call does too."""

    room = torch.empty(0)

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        _Squares.room = _Squares.room.to(x.dtype).resize_(x.shape).copy_(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * _Squares.room * grad


class Untidy(LiquidCell):
    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        return _Squares.apply(super().flow(x, h0, duration))


def test_wrong_gradients_fail() -> None:
    rejects(testing.check_gradients, Untidy, "what it is alone after another call")
    rejects(testing.check_gradients, Detached, "(?s)2 durations.*with respect to input 2")
    rejects(testing.check_gradients, WrongByHand, "(?s)3 recurrent.*with respect to input 3")
    rejects(testing.check_gradients, Idle, "idle of .* gradient, but it is not used, or detached")
    rejects(testing.check_gradients, Dead, "idle of .* gradient, but it is zero everywhere")
    rejects(testing.check_gradients, Graphic, "records a graph under")
    rejects(testing.check_gradients, Graphless, "no gradient reaches the parameters")
    rejects(testing.check_gradients, TwoFaced, "with and without a graph")


class Sparse(LiquidCell):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, wiring=Wiring.random(hidden, sparsity=0.6, seed=1))

    def of(self, weight: Tensor, mask: Tensor) -> Tensor:
        return weight * mask

    def fields(self, x: Tensor, durations: Tensor | None = None) -> Sequence[LiquidField]:
        recurrent = self.of(self.recurrent, self.masks()["recurrent"])
        return [
            LiquidField(recurrent, field.drive, field.rate)
            for field in super().fields(x, durations)
        ]


class IgnoringCell(Sparse):
    def of(self, weight: Tensor, mask: Tensor) -> Tensor:
        return weight


class DriftingCell(Sparse):
    """Starts with weights outside the wiring, which decay."""

    def _draw_own(self) -> None:
        super()._draw_own()
        nn.init.orthogonal_(self.recurrent)


class LeakingCell(Sparse):
    """Keeps the gradient from weights outside the wiring, but not the weights from the states."""

    def of(self, weight: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask, weight, weight.detach())


class TransposedCell(Sparse):
    def of(self, weight: Tensor, mask: Tensor) -> Tensor:
        return weight * mask.t()

    def _draw_own(self) -> None:
        super()._draw_own()
        with torch.no_grad():
            nn.init.orthogonal_(self.recurrent).mul_(self.masks()["recurrent"].t())


class MasklessCell(Sparse):
    def wire(self, mask: Tensor | None, *names: str) -> None:
        pass

    def fields(self, x: Tensor, durations: Tensor | None = None) -> Sequence[LiquidField]:
        return LiquidCell.fields(self, x, durations)


class LTCOfWeightsAlone(LTCCell):
    """Masks the strength of a synapse; its other numbers start anywhere, and decay."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, wiring=Wiring.random(hidden, sparsity=0.6, seed=1))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.uniform_(self.get_parameter("mu"), 0.3, 0.8)


def test_wirings_that_do_not_hold_fail() -> None:
    testing.check_masks(Sparse)
    testing.check_masks(LiquidCell)
    rejects(testing.check_masks, IgnoringCell, "leaves out 15 connections, but only 0 entries")
    rejects(testing.check_masks, DriftingCell, "15 entries of recurrent .* are not zero after")
    rejects(testing.check_masks, LeakingCell, "should have no influence")
    rejects(testing.check_masks, TransposedCell, "whether neuron j drives neuron i, but it does")
    rejects(testing.check_masks, MasklessCell, "but gives no weight a mask")
    rejects(testing.check_masks, LTCOfWeightsAlone, "15 entries of mu .* are not zero after")


class _Scaled(torch.autograd.Function):
    """A state times a weight."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return x * weight

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return grad * weight, (grad * x).sum().reshape(1)

    @staticmethod
    def jvp(ctx: Any, x_tangent: Tensor, weight_tangent: Tensor) -> Tensor:
        x, weight = ctx.saved_tensors
        return x_tangent * weight + weight_tangent * x

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, weight: Tensor) -> tuple[Tensor, int]:
        return torch.vmap(torch.mul, in_dims)(x, weight), 0


def scaled(function: type[torch.autograd.Function]) -> testing.Make:
    """Cells whose states are multiplied by a parameter, by this function."""

    class Cell(LiquidCell):
        def __init__(self, *sizes: int) -> None:
            super().__init__(*sizes)
            self.weight = nn.Parameter(0.7 * torch.ones(1))

        def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
            states: Tensor = function.apply(super().flow(x, h0, duration), self.weight)
            return states

    return Cell


class _Entangled(_Scaled):
    """Differentiated again, it goes on into what its inputs were made of."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        again = torch.is_grad_enabled()
        x, weight = ctx.saved_tensors
        if not again:
            return _Scaled.backward(ctx, grad)
        return torch.autograd.grad(x * weight, (x, weight), grad, create_graph=True)


class _OneAtATime(_Scaled):
    """Writes its gradient in place, which a batch of them does not allow."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return torch.zeros_like(x).addcmul_(grad, weight), (grad * x).sum().reshape(1)


class _Old(torch.autograd.Function):
    """In the style that torch.func does not take."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x * weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return _Scaled.backward(ctx, grad)


class _Single(_Scaled):
    """Takes the same weight for all of a batch."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, weight: Tensor) -> tuple[Tensor, int]:
        weight = weight.select(in_dims[1], 0)
        return torch.vmap(lambda x: x * weight, in_dims[0])(x), 0


class _WrongForwards(_Scaled):
    @staticmethod
    def jvp(ctx: Any, x_tangent: Tensor, weight_tangent: Tensor) -> Tensor:
        return _Scaled.jvp(ctx, x_tangent, weight_tangent) * 1.01


class _RightOnce(_Scaled):
    """Its gradient is not itself a function of the weight."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return grad * weight.detach(), (grad * x).sum().reshape(1)


class _NoTangents(_Scaled):
    """Has no derivative forwards."""

    @staticmethod
    def jvp(ctx: Any, x_tangent: Tensor, weight_tangent: Tensor) -> Tensor:
        raise NotImplementedError("no tangents")


class _NoTangentsOfGradients(_Scaled):
    """Has one itself, but its gradient has none."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return _NoTangents.apply(grad, weight), (grad * x).sum().reshape(1)


class _Keeping(_Scaled):
    """Its gradient is made of the result, whoever has changed that since."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        _Scaled.setup_context(ctx, inputs, output)
        ctx.output = output.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        weight = ctx.saved_tensors[1]
        return grad * weight, (grad * ctx.output).sum().reshape(1) / weight


class _ReadTwice(_Scaled):
    """Asks twice for what was saved, which a checkpoint gives once."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad * ctx.saved_tensors[1], (grad * ctx.saved_tensors[0]).sum().reshape(1)


class Selfish(LiquidCell):
    """No gradient for its weights unless the input asks for one."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        if not x.requires_grad:
            x = x.detach()
            h0 = None if h0 is None else h0.detach()
        return super().flow(x, h0, duration)


class OfOneThread(LiquidCell):
    """Remembers its scale where it was made, in the thread that made it."""

    local = threading.local()
    local.scale = 0.5

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        return super().flow(x, h0, duration) * getattr(self.local, "scale", 0.6)


class Clinging(LiquidCell):
    """Goes on from its own last state, where that is the one it is given."""

    last: Tensor | None = None

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        if h0 is not None and self.last is not None and torch.equal(h0, self.last):
            h0 = self.last
        states = super().flow(x, h0, duration)
        self.last = states[-1]
        return states


class LookingBack(LiquidCell):
    """Differentiates all that was before at every step, to add nothing of it."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        if h0 is not None and h0.grad_fn is not None:
            (slope,) = torch.autograd.grad(
                h0.sum(), self.recurrent, create_graph=True, materialize_grads=True
            )
            h0 = h0 + 0 * slope.sum()
        return super().flow(x, h0, duration)


class Numb(LiquidCell):
    """Under autocast, half of each gradient is lost."""

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        states = super().flow(x, h0, duration)
        if torch.is_autocast_enabled("cpu"):
            states = 0.5 * (states + states.detach())
        return states


def test_gradients_that_are_right_in_one_way_alone_fail() -> None:
    check = testing.check_transforms
    check(scaled(_Scaled))
    rejects(check, Clinging, "was detached should let no gradient through, .* reaches x of")
    rejects(check, scaled(_Keeping), "weight of Cell.* the same where a state is multiplied in p")
    rejects(check, LookingBack, "1, 2 and 3 calls take .* operations")
    rejects(check, scaled(_Entangled), "with create_graph=True")
    rejects(check, scaled(_OneAtATime), "give a gradient with is_grads_batched=True, but")
    rejects(check, scaled(_Old), "give a gradient by torch.func.grad, but: .*setup_context")
    rejects(check, scaled(_Single), "be that of backward by torch.vmap of torch.func.grad")
    rejects(check, scaled(_ReadTwice), "give a gradient under torch.utils.checkpoint, but")
    rejects(check, Selfish, "give a gradient where only some tensors require a gradient, but")
    rejects(check, OfOneThread, "the gradient of .* be that of backward in another thread")
    rejects(check, scaled(_WrongForwards), "by torch.func.jvp should be that of its gradient")
    rejects(check, scaled(_NoTangentsOfGradients), "by torch.func.jvp of torch.func.grad, but: no")
    rejects(check, scaled(_RightOnce), "gradient of the gradient of .* be that of finite differ")
    rejects(check, Numb, "under autocast to bfloat16, with create_graph=False, the gradient of")
