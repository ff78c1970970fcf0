"""What every recurrent cell offers: one step of it, and a whole sequence."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast

import torch
from torch import Tensor

from liquid_ode.cells.checks import (
    all_finite,
    check_device,
    check_duration,
    check_durations,
    check_finite,
    check_like,
    check_like_weights,
    check_tensor,
    check_weights,
    refuse_torchscript,
    untraced,
)
from liquid_ode.cells.names import explained
from liquid_ode.cells.traced import is_looped, looped
from liquid_ode.cells.wiring.masks import Wired, check_fits
from liquid_ode.cells.wiring.wiring import Wiring, check_count
from solvers import SolverError
from solvers.checks import holds


class RecurrentCell(Wired, ABC):
    """A state that flows under an input for some time: h1 = cell(x, h0, duration=d).

    A subclass gives :meth:`flow`; one whose samples are maps, not vectors, also ``feature_axes``
    and :meth:`state_shape`.

    Args:
        input_size: features (channels) of an input.
        hidden_size: features (channels) of the state.
        wiring: which neurons are connected; None for all. It has an effect on the weights that
            the subclass gives a mask, by :meth:`wire` or as a :class:`WiredLinear`.

    Raises:
        ValueError: where a size is no whole number of at least 1, or the wiring has another.
    """

    feature_axes: ClassVar[int] = 1
    """How many of the last axes belong to one sample: 1 for vectors, 3 for maps ``(C, H, W)``."""

    def __init__(self, input_size: int, hidden_size: int, wiring: Wiring | None = None) -> None:
        super().__init__()
        self.input_size = check_count("input_size", input_size)
        self.hidden_size = check_count("hidden_size", hidden_size)
        check_fits(wiring, input_size, hidden_size)
        self.wiring = wiring

    def extra_repr(self) -> str:
        wiring = "" if self.wiring is None else f", wiring={self.wiring}"
        return f"{self.input_size}, {self.hidden_size}{wiring}"

    def __repr__(self) -> str:
        """One line, without the layers inside, so that a network of cells can be read."""
        return f"{type(self).__name__}({self.extra_repr()})"

    @abstractmethod
    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        """The states after each of T inputs, of arguments that have been checked.

        Args:
            x: ``(T, B, *features)``.
            h0: ``(B, *state)``; at rest if None.
            duration: of every input alike, or ``(T, B, 1, ..., 1)`` with the axes of ``x``.

        Returns:
            ``(T, B, *state)``.
        """

    def flow_with_resets(
        self, x: Tensor, h0: Tensor | None, duration: float | Tensor, resets: Tensor
    ) -> Tensor:
        """As :meth:`flow`, where a state starts anew, at zero, before some inputs.

        A subclass whose :meth:`flow` takes ``resets=None`` as well does so itself. Of others the
        sequence is cut wherever a sample starts anew, so that :meth:`flow` is called for each part.

        Args:
            resets: bool ``(T, B, 1, ..., 1)`` with the axes of ``x``.
        """
        if "resets" in inspect.signature(self.flow).parameters:
            return cast(Any, self.flow)(x, h0, duration, resets=resets)
        anywhere = resets.flatten(1).any(1)
        known = holds(anywhere) is not None  # else it is cut at every step
        steps = [step for step in range(1, len(resets)) if not known or bool(anywhere[step])]
        cuts = [0, *steps, len(resets)]
        states = []
        for part in map(slice, cuts[:-1], cuts[1:]):
            if h0 is not None:
                h0 = h0.masked_fill(resets[part.start], 0)  # not a product: one may be NaN
            of_part = duration[part] if isinstance(duration, Tensor) else duration
            states.append(self.flow(x[part], h0, of_part))
            h0 = states[-1][-1]
        return torch.cat(states)

    def state_shape(self, features: Sequence[int]) -> tuple[int, ...]:
        """The shape of one sample's state under an input of shape ``features``."""
        return (self.hidden_size,)

    def output(self, states: Tensor) -> Tensor:
        """What a network passes on of states ``(..., *state)``: all, unless a cell says less."""
        return states

    if TYPE_CHECKING:  # a module's own call is of Any

        def __call__(
            self,
            x: Tensor,
            h0: Tensor | None = None,
            *,
            duration: float | Tensor = 1.0,
            durations: float | Tensor | None = None,
            resets: Tensor | None = None,
        ) -> Tensor: ...

    @untraced
    @explained
    def forward(
        self,
        x: Tensor,
        h0: Tensor | None = None,
        *,
        duration: float | Tensor = 1.0,
        durations: float | Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Tensor:
        """Let the state flow from h0 for ``duration`` under the constant input x.

        With ``durations``, which :meth:`sequence` and :class:`LiquidRNN` give, x is a sequence of
        inputs ``(T, B, *features)``, and what comes back are the states after each of them: one
        call, so that a hook on the cell fires once for the whole sequence.

        Args:
            x: ``(*batch, input_size)``; every row of the batch is a sample of its own.
            h0: ``(*batch, hidden_size)``; zeros if None.
            duration: time to flow for, at least 0: a number, or ``(*batch, 1)`` where every
                sample has its own.
            durations: how long each input of a sequence acts, in place of ``duration``: a
                number, or ``(T, B)``.
            resets: bool ``(T, B)``, before which inputs of a sequence the state starts anew, at
                zero.

        Returns:
            h1 ``(*batch, hidden_size)``; of a sequence ``(T, B, *state)``.

        Raises:
            ValueError: where a shape, a dtype or a device does not fit, a duration is negative or
                not finite, or x, h0 or a weight is not finite.
            SolverError: where the cell's solver fails.
        """
        features = self._features(x)
        if durations is not None:
            return self._forward_sequence(x, h0, durations, resets)
        batch = x.shape[: -self.feature_axes]
        state = self.state_shape(features)
        if h0 is not None:
            self._check_state(h0, (*batch, *state), x)
            h0 = h0.reshape(-1, *state)
        ones = (1,) * self.feature_axes
        if isinstance(duration, Tensor):
            if tuple(duration.shape) not in ((*batch, *ones), ()):
                raise ValueError(
                    f"duration must be a number or have shape {(*batch, *ones)}, "
                    f"not {tuple(duration.shape)}"
                )
            check_device("duration", duration, "x", x)
            check_durations(duration)
            duration = duration.expand(*batch, *ones).reshape(1, -1, *ones)
        elif not isinstance(duration, (int, float)):
            raise ValueError(f"duration must be a number or a tensor, not {duration!r}")
        else:
            check_duration(duration)
        states = self._finite_flow(x.reshape(1, -1, *features), h0, duration)
        # Not [0], whose gradient is contiguous and would undo channels_last.
        return states.squeeze(0).reshape(*batch, *state)

    def sequence(
        self, x: Tensor, h0: Tensor | None = None, durations: float | Tensor | None = None
    ) -> Tensor:
        """The states after each input of a sequence: :meth:`forward` once for every input.

        What does not depend on the state is computed for all inputs together. It is a call of the
        cell, ``cell(x, h0, durations=...)``, so that its hooks fire.

        Args:
            x: ``(T, B, *features)``.
            h0: ``(B, *state)``; at rest if None.
            durations: how long every input acts, ``(T, B)``, or a number for all; 1 if None.

        Returns:
            ``(T, B, *state)``.

        Raises:
            ValueError: where a shape, a dtype or a device does not fit, a duration is negative or
                not finite, or x, h0 or a weight is not finite.
            SolverError: where the cell's solver fails.
        """
        states: Tensor = self(x, h0, durations=1.0 if durations is None else durations)
        return states

    def _forward_sequence(
        self, x: Tensor, h0: Tensor | None, durations: float | Tensor, resets: Tensor | None
    ) -> Tensor:
        if x.ndim != 2 + self.feature_axes or x.shape[0] == 0:
            raise ValueError(
                f"x must have shape (T, B, ...) with T > 0 and {2 + self.feature_axes} axes, "
                f"not {tuple(x.shape)}"
            )
        steps, batch = x.shape[:2]
        if h0 is not None:
            self._check_state(h0, (batch, *self.state_shape(x.shape[2:])), x)
        ones = (1,) * self.feature_axes
        anew = None
        if resets is not None:
            check_tensor("resets", resets)
            if resets.dtype != torch.bool or tuple(resets.shape) != (steps, batch):
                raise ValueError(
                    f"resets must be bool of shape {(steps, batch)}, not {resets.dtype} of "
                    f"{tuple(resets.shape)}"
                )
            check_device("resets", resets, "x", x)
            anew = resets.reshape(steps, batch, *ones)
        if isinstance(durations, (int, float)):
            return self._finite_flow(x, h0, check_duration(durations), anew)
        check_tensor("durations", durations)
        if tuple(durations.shape) != (steps, batch):
            raise ValueError(
                f"durations must have shape {(steps, batch)}, not {tuple(durations.shape)}"
            )
        check_device("durations", durations, "x", x)
        check_durations(durations)
        return self._finite_flow(x, h0, durations.reshape(steps, batch, *ones), anew)

    def _finite_flow(
        self, x: Tensor, h0: Tensor | None, duration: float | Tensor, resets: Tensor | None = None
    ) -> Tensor:
        """:meth:`flow`; where its result, or the solver, gives cause to, what is to blame."""
        failure: Exception | None = None
        try:
            if is_looped(x):
                states = looped(self.flow, x, h0, duration, resets)
            elif resets is None:
                states = self.flow(x, h0, duration)
            else:
                states = self.flow_with_resets(x, h0, duration, resets)
            if states.numel() == 0 or all_finite(x, states[-1]):
                return states
        except (ValueError, SolverError) as error:  # of a cell within this one, say
            failure = error
        if x.shape[0] == 1:
            check_finite("x", x[0], ("sample",))
        check_finite("x", x, ("step", "sample"))
        if h0 is not None:
            check_finite("h0", h0, ("sample",))
        check_weights(self)
        raise failure or ValueError(
            f"the states of the {type(self).__name__} are not finite, though x, h0 and the "
            f"parameters are: numbers too large for {x.dtype}, or a weight that is made of others, "
            "as by the norm of a row of zeros"
        )

    def __prepare_scriptable__(self) -> NoReturn:
        """What torch.jit.script asks a module for."""
        refuse_torchscript(self)

    def _features(self, x: Tensor) -> tuple[int, ...]:
        """The shape of one sample's input."""
        check_tensor("x", x)
        if not x.is_floating_point():
            raise ValueError(f"x must be floating point, not {x.dtype}: call x.float() first")
        features = tuple(x.shape[-self.feature_axes :])
        if x.ndim < self.feature_axes or features[0] != self.input_size:
            more = "".join(f", {name}" for name in "HWD"[: self.feature_axes - 1])
            raise ValueError(
                f"x must have shape (*batch, {self.input_size}{more}), not {tuple(x.shape)}"
            )
        check_like_weights("x", x, self)
        return features

    @staticmethod
    def _check_state(h0: Tensor, expected: tuple[int, ...], x: Tensor) -> None:
        check_tensor("h0", h0)
        if tuple(h0.shape) != expected:
            raise ValueError(f"h0 must have shape {expected}, not {tuple(h0.shape)}")
        check_like("h0", h0, "x", x)
