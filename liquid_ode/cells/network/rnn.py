"""A cell run over sequences: several layers, both directions, as torch.nn.GRU does."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

from liquid_ode.cells.base import RecurrentCell
from liquid_ode.cells.checks import check_finite, check_tensor, refuse_torchscript, untraced
from liquid_ode.cells.liquid.cell import LiquidCell
from liquid_ode.cells.names import explained
from liquid_ode.cells.network.making import make_cell, wirings_of_layers
from liquid_ode.cells.network.packing import Steps, steps_of
from liquid_ode.cells.network.readout import MotorReadout
from liquid_ode.cells.network.timing import Timing
from liquid_ode.cells.wiring.wiring import Wiring, check_count
from solvers import Solver, SolverError


class LiquidRNN(nn.Module):
    """A liquid cell over sequences, with regular or irregular time steps.

    Under each input, held constant, the state flows for the input's duration. Where they overlap
    it behaves as :class:`torch.nn.GRU`, and can replace one (mind that ``batch_first`` is the
    default here): shapes, order of the states, packed sequences, dropout. D below is 2 if
    ``bidirectional``, else 1; I and H are the two sizes.

    >>> rnn = LiquidRNN(3, 16, num_layers=2)
    >>> out, h = rnn(torch.randn(8, 20, 3), durations=torch.rand(8, 20))
    >>> out.shape, h.shape
    (torch.Size([8, 20, 16]), torch.Size([2, 8, 16]))

    A stream gives the same numbers a step, or any number of steps, at a time (unless
    ``bidirectional``: the backward direction begins at the last step):

    >>> h = None
    >>> for x in stream:  # (B, 1, I)
    ...     out, h = rnn(x, h)

    Args:
        input_size: features of an input; channels where the cell works on maps.
        hidden_size: features (channels) of the state.
        num_layers: layers, each of which takes the outputs of the one before it.
        solver: the solver of every cell; the cell's own default if None.
        cell: the class of the cells, or any callable ``cell(input_size, hidden_size, **given)``
            that makes a :class:`RecurrentCell`. ``solver`` and ``wiring`` are passed where given.
        wiring: which neurons are connected, one for all layers or a sequence of one for each;
            None for all neurons.
        batch_first: sequences are ``(B, T, features)``, else ``(T, B, features)``. States are not
            affected.
        dropout: probability of zeroing an output of a layer but the top one, in training.
        bidirectional: a second cell in each layer goes from the end to the start.
        projection: a linear map of the outputs of the top layer to this number of features, or
            a module, such as :class:`MotorReadout`, which is called on rows ``(N, D * H)`` (or
            maps ``(N, D * H, height, width)``). Unlike ``proj_size`` of :class:`torch.nn.LSTM`, it
            is not part of the recurrence.
        recompute: the gradient makes the inner states of a sequence again, in segments of about
            √T steps, instead of keeping them: memory hardly grows with the length beyond inputs
            and outputs, for one more forward pass.
        device: of the parameters (of ``projection``, where it is no module).
        dtype: of the parameters, likewise.

    Raises:
        ValueError: where an argument is out of range, or the cell does not take it.
    """

    @explained
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        solver: Solver | None = None,
        cell: Callable[..., RecurrentCell] = LiquidCell,
        wiring: Wiring | Sequence[Wiring | None] | None = None,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        projection: int | nn.Module | None = None,
        recompute: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.input_size = check_count("input_size", input_size)
        self.hidden_size = check_count("hidden_size", hidden_size)
        self.num_layers = check_count("num_layers", num_layers)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), not {dropout}")
        if dropout and num_layers == 1:
            warnings.warn(
                f"dropout={dropout} acts between layers, and there is only one", stacklevel=2
            )
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.recompute = recompute
        directions = 2 if bidirectional else 1
        self.cells = nn.ModuleList()  # layer 0, layer 0 backwards, layer 1, ...
        sizes = [input_size, *[directions * hidden_size] * (num_layers - 1)]
        for size, wires in zip(sizes, wirings_of_layers(wiring, sizes), strict=True):
            for _ in range(directions):
                self.cells.append(make_cell(cell, size, hidden_size, solver, wires))
        if isinstance(projection, (int, MotorReadout)) and self._feature_axes > 1:
            raise ValueError(
                f"{type(self.cells[0]).__name__} gives maps: projection must be a module that "
                f"takes maps, such as a convolution, not {projection}"
            )
        if isinstance(projection, int):
            width = check_count("projection", projection)
            self.projection: nn.Module | None = nn.Linear(directions * hidden_size, width)
        elif projection is None or isinstance(projection, nn.Module):
            self.projection = projection
        else:
            raise ValueError(f"projection must be a size or a module, not {projection!r}")
        owned = self.cells if isinstance(projection, nn.Module) else self
        owned.to(device=device, dtype=dtype)

    if TYPE_CHECKING:  # a module's own call is of Any

        @overload
        def __call__(
            self,
            x: Tensor,
            h0: Tensor | None = None,
            durations: float | Tensor | None = None,
            resets: Tensor | None = None,
        ) -> tuple[Tensor, Tensor]: ...
        @overload
        def __call__(
            self,
            x: PackedSequence,
            h0: Tensor | None = None,
            durations: float | PackedSequence | None = None,
            resets: PackedSequence | None = None,
        ) -> tuple[PackedSequence, Tensor]: ...
        def __call__(self, x: Any, *more: Any, **named: Any) -> Any: ...

    @untraced
    @explained
    def forward(
        self,
        x: Tensor | PackedSequence,
        h0: Tensor | None = None,
        durations: float | Tensor | PackedSequence | None = None,
        resets: Tensor | PackedSequence | None = None,
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """Run over the sequences.

        Args:
            x: ``(B, T, I)``; ``(T, I)`` unbatched; or a packed sequence, with data ``(N, I)``.
            h0: ``(num_layers * D, B, H)``; at rest if None. ``(num_layers * D, H)`` unbatched.
            durations: how long each input acts, in the cell's unit of time; 1 each if None. A
                number, or a tensor without axes, for every input; ``(T,)`` for those of all
                samples alike (a single axis is always that of time); ``(B, T)`` or ``(B, T, 1)``.
                ``(T,)`` or ``(T, 1)`` unbatched; for a packed sequence packed with the same
                lengths, data ``(N,)`` or ``(N, 1)``, or padded, where what is beyond a length is
                not used. Of any dtype of real numbers. An input of duration 0, such as padding,
                leaves the state alone.
            resets: bool, of these shapes: before which inputs the state starts anew, at zero. See
                below.

        Without ``batch_first`` T comes before B in x, durations, resets and outputs. For a cell on
        maps ``(C, height, width)`` they take the place of I, and those of the state that of H. A
        :class:`MixedMemoryCell` has states of 2 H.

        A reset cuts a sequence into episodes, each as if run by itself, and no gradient crosses
        it. With ``done[t]`` where an environment ended after its input t, ``resets[t + 1] =
        done[t]``. At its first input a sequence starts from h0 unless it is reset there. The
        backward direction, which comes to an episode from its end, starts anew at the same
        boundaries: before the last input of every episode but the last, which it starts from its
        own h0; its h_n is that of the first episode.

        Returns:
            the states of the top layer after each input, ``(B, T, D * H)`` with the directions
            side by side, projected; and h_n, like h0: the last state of every layer and
            direction, of each sample at its own end.

        Raises:
            ValueError: where a shape or length does not fit, the sequence is empty, or a duration
                is negative or not finite.
            SolverError: where the cell's solver fails.
        """
        steps, data, h_n = self._run(x, h0, durations, resets)
        if self.projection is not None:
            lead = data.shape[: -self._feature_axes]
            data = self.projection(data.flatten(0, len(lead) - 1)).unflatten(0, lead)
        return steps.give_data(data), steps.give_state(h_n)

    @explained
    def last(
        self,
        x: Tensor | PackedSequence,
        h0: Tensor | None = None,
        durations: float | Tensor | PackedSequence | None = None,
        resets: Tensor | PackedSequence | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run over the sequences, as :meth:`forward`, for the last state of each alone.

        Returns:
            the last state of the top layer, ``(B, D * H)``, projected: of each direction at its
            own end, so that both have seen the whole sequence; and h_n as :meth:`forward`.

        What is raised is as by :meth:`forward`.
        """
        steps, _, h_n = self._run(x, h0, durations, resets)
        directions = 2 if self.bidirectional else 1
        top = zip(self.cells[-directions:], h_n[-directions:], strict=True)
        ends = [cast(RecurrentCell, cell).output(end) for cell, end in top]
        out = torch.cat(ends, dim=-self._feature_axes)  # (B, D * H)
        if self.projection is not None:
            out = self.projection(out)
        return steps.give_state(out.unsqueeze(0)).squeeze(0), steps.give_state(h_n)

    @property
    def _feature_axes(self) -> int:
        return cast(RecurrentCell, self.cells[0]).feature_axes

    def _run(
        self,
        x: Tensor | PackedSequence,
        h0: Tensor | None,
        durations: float | Tensor | PackedSequence | None,
        resets: Tensor | PackedSequence | None,
    ) -> tuple[Steps, Tensor, Tensor]:
        """:meth:`_layers`; where it fails, the input that is to blame in the user's own order."""
        try:
            return self._layers(x, h0, durations, resets)
        except (ValueError, SolverError):
            if isinstance(x, PackedSequence):
                x, _ = pad_packed_sequence(x, self.batch_first)
            if isinstance(x, Tensor):
                axes = ["sample", "step"] if self.batch_first else ["step", "sample"]
                batched = x.ndim == 2 + self._feature_axes
                check_finite("x", x, axes if batched else ["step"])
            raise

    def _layers(
        self,
        x: Tensor | PackedSequence,
        h0: Tensor | None,
        durations: float | Tensor | PackedSequence | None,
        resets: Tensor | PackedSequence | None,
    ) -> tuple[Steps, Tensor, Tensor]:
        """The steps of x, the outputs of the top layer, and h_n, in the order of the steps."""
        axes = self._feature_axes
        steps, data = steps_of(x, axes, self.input_size, batch_first=self.batch_first)
        starts = self._starts(steps, h0, tuple(data.shape[-axes:]))
        timing = Timing.of(steps, durations, resets, data)
        backwards = timing.reverse(steps) if self.bidirectional else timing
        ends: list[Tensor] = []
        for layer in range(self.num_layers):
            if layer > 0:
                data = F.dropout(data, self.dropout, self.training)
            out, end = self._through(steps, len(ends), data, starts[len(ends)], timing)
            ends.append(end)
            if self.bidirectional:
                turned, start = steps.reverse(data), starts[len(ends)]
                back, end = self._through(steps, len(ends), turned, start, backwards)
                ends.append(end)
                out = torch.cat([out, steps.reverse(back)], dim=-axes)
            data = out
        return steps, data, torch.stack(ends)

    def _through(
        self, steps: Steps, index: int, data: Tensor, h: Tensor | None, timing: Timing
    ) -> tuple[Tensor, Tensor]:
        """The outputs of one cell after each input, and the state of each sample at its own end."""
        cell = cast(RecurrentCell, self.cells[index])
        again = self.recompute and torch.is_grad_enabled()
        blocks = steps.blocks(data)
        states, ended = [], []
        for x, of_block in zip(blocks, timing.parts(steps.blocks, len(blocks)), strict=True):
            if h is not None and x.shape[1] < h.shape[0]:
                ended.append(h[x.shape[1] :])
                h = h[: x.shape[1]]
            if again:
                part, h = _recomputed(cell, x, h, of_block, math.isqrt(steps.length))
            else:
                part = of_block.call(cell, x, h)
                h = part[-1]
            states.append(part)
        ends = torch.cat([cast(Tensor, h), *reversed(ended)])
        return cell.output(steps.join(states)), ends

    def _starts(
        self, steps: Steps, h0: Tensor | None, features: tuple[int, ...]
    ) -> Sequence[Tensor | None]:
        """The initial state of every cell."""
        count = len(self.cells)
        if h0 is None:
            return [None] * count
        check_tensor("h0", h0)
        state = cast(RecurrentCell, self.cells[0]).state_shape(features)
        expected = (count, *steps.state_axes, *state)
        if tuple(h0.shape) != expected:
            raise ValueError(
                f"h0 must have shape {expected}, layers * directions first, not {tuple(h0.shape)}"
            )
        return steps.take_state(h0).unbind()

    def __prepare_scriptable__(self) -> NoReturn:
        """What torch.jit.script asks a module for."""
        refuse_torchscript(self)

    def extra_repr(self) -> str:
        shown = [f"{self.input_size}, {self.hidden_size}"]
        usual = {"num_layers": 1, "batch_first": True, "dropout": 0.0}
        usual |= {"bidirectional": False, "recompute": False}
        for name, value in usual.items():
            if getattr(self, name) != value:
                shown.append(f"{name}={getattr(self, name)}")
        return ", ".join(shown)


def _recomputed(
    cell: RecurrentCell, x: Tensor, h: Tensor | None, timing: Timing, length: int
) -> tuple[Tensor, Tensor]:
    """The states under the inputs of a block, and the last; ``length`` steps recorded at a time."""
    parts = x.split(length)
    # By default the shape of every tensor is noted, to compare it when it is made again: in small
    # batches those notes take as much memory as the outputs.
    how: dict[str, Any] = {"use_reentrant": False, "determinism_check": "none"}
    states = []
    of_parts = timing.parts(lambda of_all: of_all.split(length), len(parts))
    for part, of_part in zip(parts, of_parts, strict=True):
        states.append(checkpoint(of_part.call, cell, part, h, **how))
        h = states[-1][-1].clone()  # what is kept for the gradient; a view would keep them all
    return torch.cat(states), cast(Tensor, h)
