"""The arguments of a call as they are checked, and states as the user has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solvers.checks import has_gradient
from solvers.drop_in.control import Watch
from solvers.fields.batch_parts import WrappedFunction
from solvers.fields.structures import Layout, leaves_of, rebuilt
from solvers.methods.arithmetic import Increment
from solvers.step_size.pid import ErrorControl

State = Any
"""A tensor, or a tuple of tensors."""

_CALLBACKS = ("callback_step", "callback_accept_step", "callback_reject_step")


@dataclass(frozen=True, eq=False)
class Call:
    """One call's problem.

    Attributes:
        func: for states as the loop's transcription hands them out.
        original: as it was given.
        y0: the state.
        t: the times ``(T,)``, T at least 1.
        layout: of a state that is not one real tensor.
    """

    func: Any
    original: Any
    y0: State
    t: Tensor
    layout: Layout | None

    @classmethod
    def of(cls, func: Any, y0: Any, t: Any) -> Call:
        """Of the arguments of ``odeint``.

        Raises:
            ValueError: where one is not as described there.
        """
        if not callable(func):
            raise ValueError(f"func must be callable as func(t, y), not {type(func).__name__}")
        layout = None
        if not isinstance(y0, Tensor) or y0.is_complex():
            layout = Layout.of(y0)
        elif not y0.is_floating_point():
            raise ValueError(f"y0 must be floating point, not {y0.dtype}: call y0.float() first")
        own = func if isinstance(y0, Tensor) else OfTuple(func, y0)
        return cls(own, func, y0, _checked_times(t), layout)

    @property
    def parts(self) -> int | None:
        """How many tensors the state has; None where it is one."""
        return None if isinstance(self.y0, Tensor) else len(list(leaves_of(self.y0)))

    def as_given(self, row: Tensor) -> State:
        """The state as the user has it, of the loop's one row."""
        if self.layout is None:
            return row.reshape(self.y0.shape)
        return self.layout.unpack(row.reshape(*self.layout.batch, -1))

    def watch(self, start: float, end: float) -> Watch | None:
        """What calls the callbacks of func, in a solve from ``start`` to ``end``."""
        refused = [f"{name}_adjoint" for name in _CALLBACKS]
        found = [name for name in refused if hasattr(self.original, name)]
        if found:
            raise ValueError(
                f"func has {found[0]}, and of the steps of the way back nobody is told here: "
                "leave it out"
            )
        begun, taken, refused_step = (getattr(self.original, name, None) for name in _CALLBACKS)
        if begun is None and taken is None and refused_step is None:
            return None
        way = 1.0 if end > start else -1.0

        def watch(control: ErrorControl, y: Tensor, dt: Increment, accepted: Tensor) -> None:
            t = end - way * control.remaining.reshape(())
            told = t, self.as_given(y), torch.as_tensor(dt).reshape(())
            for call in (begun, taken if bool(accepted) else refused_step):
                if call is not None:
                    call(*told)

        return watch


class OfTuple(WrappedFunction):
    """A function of tuples, whose parts need have the size of the state's alone, not the shape."""

    independent = property(lambda self: getattr(self.function, "independent", False))

    def __call__(self, t: Tensor, y: State) -> State:
        (y0,) = self.settings
        value = self.function(t, y)
        own, given = list(leaves_of(y0)), list(leaves_of(value))
        if [path for path, _ in own] != [path for path, _ in given]:
            return value  # which the layout will complain of

        def parts() -> Iterator[Any]:
            for (_, like), (_, part) in zip(own, given, strict=True):
                odd = isinstance(part, Tensor) and part.shape != like.shape
                yield part.reshape(like.shape) if odd and part.numel() == like.numel() else part

        return rebuilt(y0, parts())


def _checked_times(t: Any) -> Tensor:
    if not isinstance(t, Tensor) or not t.is_floating_point() or t.ndim != 1 or not len(t):
        what = f"{t.dtype} of shape {tuple(t.shape)}" if isinstance(t, Tensor) else repr(t)
        raise ValueError(
            f"t must be a floating-point tensor (T,) of times, the first of them that of y0, not "
            f"{what}"
        )
    steps = t.detach().diff()
    if not bool((steps > 0).all() or (steps < 0).all()):
        raise ValueError(f"t must be strictly increasing or strictly decreasing, not {t}")
    return t


def numbers(t: Tensor) -> Sequence[Any]:
    """The times: numbers where no gradient flows to them, else tensors ``()``."""
    return list(t.unbind()) if has_gradient(t) else t.tolist()


def mapped(function: Callable[..., Tensor], *states: State) -> State:
    """The state whose tensors are the function's, of those of the states."""
    leaves = zip(*([leaf for _, leaf in leaves_of(state)] for state in states), strict=True)
    return rebuilt(states[0], iter([function(*each) for each in leaves]))


def along_time(*states: State) -> State:
    """Several states after each other, ``(T, ...)``."""
    return mapped(lambda *each: torch.stack(each), *states)
