"""The steps of a CfC cell over a sequence, with a hand-written gradient where it is known.

Every step is a chain of linear maps, an activation between two of them, and the form at the end:

    z_1 = x_t + W_1 h,    z_i = W_i act(z_{i-1}) + b_i,    h = form(z_k, d_t).

The input's share x_t of the first map is computed for all steps together, outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from liquid_ode.cells.cfc.forms import BlendingForm, CfCForm
from solvers import HandWritten


@dataclass(frozen=True)
class Chain:
    """What a step does, apart from its tensors.

    Args:
        form: makes the state of z_k, the heads.
        activations: between two maps; None where all are tanh, whose gradient is known.
        duration: of every step alike; None where they are given as a tensor.
    """

    form: CfCForm
    activations: Sequence[Callable[[Tensor], Tensor]] | None
    duration: float | None

    def run(
        self,
        inputs: Tensor,
        durations: Tensor | None,
        start: Tensor,
        first: Tensor,
        rest: Sequence[Tensor],
        vectors: Sequence[Tensor],
    ) -> Tensor:
        """The state after every step.

        Args:
            inputs: x_t, ``(T, B, F_1)``.
            durations: ``(T, B, 1)``, or None.
            start: h before the first step, ``(B, H)``.
            first: W_1, ``(F_1, H)``.
            rest: W_2, b_2, W_3, b_3 and so on.
            vectors: the parameters of the form.

        Returns:
            ``(T, B, H)``.
        """
        known = isinstance(self.form, BlendingForm) and self.activations is None
        if not known or (durations is not None and durations.requires_grad):
            return self.by_autograd(inputs, durations, start, first, rest, vectors)
        times = () if durations is None else (durations,)
        return _Steps(self, len(times))(inputs, *times, start, first, *rest)

    def by_autograd(
        self,
        inputs: Tensor,
        durations: Tensor | None,
        start: Tensor,
        first: Tensor,
        rest: Sequence[Tensor],
        vectors: Sequence[Tensor] = (),
    ) -> Tensor:
        """The same, recorded by autograd, and for any form and activation."""
        used = [first, *rest, *vectors]
        regrouped = torch.is_grad_enabled() and inputs.dtype.itemsize < 4
        if regrouped:  # else a sum over many steps of gradients would be rounded at every step
            precise = [tensor.float() for tensor in used]
        h, hidden, states = start, start.shape[1], []
        times = self.of_steps(inputs, durations)
        for step, (x, duration) in enumerate(zip(inputs.unbind(), times, strict=True)):
            if regrouped and step % GROUP == 0:
                used = [tensor.to(inputs.dtype) for tensor in precise]
            z = torch.addmm(x, h, used[0].t())
            maps = _pairs(used[1 : 1 + len(rest)])
            acts = [torch.tanh] * len(maps) if self.activations is None else self.activations
            for act, (weight, bias) in zip(acts, maps, strict=True):
                z = torch.addmm(bias, act(z), weight.t())
            h = self.form.state(z, duration, used[1 + len(rest) :], hidden)
            states.append(h)
        return torch.stack(states)

    def of_steps(self, inputs: Tensor, durations: Tensor | None) -> Sequence[float | Tensor]:
        """The duration of every step."""
        if durations is None:
            return [cast(float, self.duration)] * inputs.shape[0]
        return durations.unbind()


GROUP = 8
"""Steps whose gradients are added up in half precision, before float32 takes their sum."""


def _pairs(rest: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(rest[::2], rest[1::2], strict=True))


class _Heads:
    """Views of the heads of every step, made all at once: one at a time they cost a kernel each."""

    def __init__(self, heads: Tensor, hidden: int) -> None:
        self.both = heads[..., : 2 * hidden].unbind()  # f and g
        parts = [part.unbind() for part in heads.split(hidden, dim=2)]
        self.f, self.g, self.s = parts[:3]
        self.pace = parts[3] if len(parts) == 4 else None

    def act(self, step: int, duration: float | Tensor) -> None:
        """Turn the heads into f, g and s."""
        if self.pace is not None:
            self.s[step].addcmul_(self.pace[step], cast(Tensor, duration))
        self.both[step].tanh_()
        self.s[step].sigmoid_()

    def pull(self, acted: _Heads, step: int, duration: float | Tensor) -> None:
        """Turn gradients of f, g and s into those of the heads."""
        both, s = self.both[step], self.s[step]
        torch.ops.aten.tanh_backward.grad_input(both, acted.both[step], grad_input=both)
        torch.ops.aten.sigmoid_backward.grad_input(s, acted.s[step], grad_input=s)
        if self.pace is not None:
            torch.mul(s, cast(Tensor, duration), out=self.pace[step])


def _room(like: Tensor, width: int, *, kept: bool) -> Tensor:
    """``(T, B, width)`` to write to, in one step's memory unless the steps are to be kept."""
    steps, batch = like.shape[:2]
    if kept:  # no view: autograd lets nobody change one that a Function has made
        return like.new_empty(steps, batch, width)
    return like.new_empty(1, batch, width).expand(steps, batch, width)


def _forward(
    chain: Chain,
    inputs: Tensor,
    durations: Tensor | None,
    start: Tensor,
    first: Tensor,
    rest: Sequence[Tensor],
    *,
    kept: bool,
) -> list[Tensor]:
    """The states without autograd, and act(z_1) to act(z_{k-1}), and the acted heads."""
    states = _room(inputs, start.shape[1], kept=True)
    values = [_room(inputs, weight.shape[0], kept=kept) for weight in (first, *rest[::2])]
    of_steps = [value.unbind() for value in values]
    heads = _Heads(values[-1], start.shape[1])
    blend = cast(BlendingForm, chain.form).blend
    onto_first = first.t().contiguous()  # products with it are faster so
    maps = [(weight.t().contiguous(), bias) for weight, bias in _pairs(rest)]
    times = chain.of_steps(inputs, durations)
    h = start
    for step, (x, out) in enumerate(zip(inputs.unbind(), states.unbind(), strict=True)):
        # Two kernels, and faster than addmm, which first copies what it adds to.
        z = torch.mm(h, onto_first, out=of_steps[0][step]).add_(x)
        for index, (weight, bias) in enumerate(maps, start=1):
            z = torch.mm(z.tanh_(), weight, out=of_steps[index][step]).add_(bias)
        heads.act(step, times[step])
        h = blend(heads.f[step], heads.g[step], heads.s[step], out=out)
    return [states, *values]


class _Steps(HandWritten):
    """The states as a function of inputs, durations where they are a tensor, start and weights.

    Autograd would record every kernel, and make a product for every weight and step that it then
    adds up. By hand the exact gradient of the same steps takes three quarters of the time.
    """

    def __init__(self, chain: Chain, times: int) -> None:
        self.chain, self.times = chain, times

    def _given(self, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
        """Inputs, durations or None, start, first map, the others."""
        inputs, *others = tensors
        durations = others[0] if self.times else None
        start, first, *rest = others[self.times :]
        return inputs, durations, start, first, rest

    def plain(self, *tensors: Tensor) -> Tensor:
        return self.chain.by_autograd(*self._given(tensors))

    def forward(self, tensors: Sequence[Tensor], *, keep: bool) -> tuple[Tensor, list[Tensor]]:
        states, *values = _forward(self.chain, *self._given(tensors), kept=keep)
        # Not the states, which are the caller's to change.
        return states, values if keep else []

    def backward(
        self, tensors: Sequence[Tensor], kept: Sequence[Tensor], grad: Tensor
    ) -> Sequence[Tensor]:
        inputs, durations, *others = self._given(tensors)
        of_inputs, *found = _gradients(self.chain, (inputs, durations, *others), kept, grad)
        # None is asked for of the durations.
        return of_inputs, *(() if durations is None else (torch.zeros_like(durations),)), *found


def _gradients(
    chain: Chain, given: Sequence[Any], values: Sequence[Tensor], grad: Tensor
) -> Sequence[Tensor]:
    """The gradients of the inputs, the start and the weights, by hand."""
    inputs, durations, start, first, rest = given
    of_values = [
        _room(inputs, value.shape[2], kept=index == 0) for index, value in enumerate(values)
    ]
    sums = _MapGradients(rest, inputs.shape[1])
    of_start = _backward(chain, durations, first, rest, grad, values, of_values, sums)
    of_first = of_values[0][0].t() @ start
    if len(inputs) > 1:
        f, g, s = values[-1][:-1].split(start.shape[1], dim=2)[:3]
        states = cast(BlendingForm, chain.form).blend(f, g, s)
        of_first.addmm_(of_values[0][1:].flatten(0, 1).t(), states.flatten(0, 1))
    return of_values[0], of_start, of_first, *sums.gradients()


def _backward(
    chain: Chain,
    durations: Tensor | None,
    first: Tensor,
    rest: Sequence[Tensor],
    grad: Tensor,
    values: Sequence[Tensor],
    of_values: Sequence[Tensor],
    sums: _MapGradients,
) -> Tensor:
    """Fill the gradients of z and of the maps after the first; return that of the start."""
    hidden = first.shape[1]
    heads, of_heads = _Heads(values[-1], hidden), _Heads(of_values[-1], hidden)
    pull = cast(BlendingForm, chain.form).pull
    z, of_z = [value.unbind() for value in values], [value.unbind() for value in of_values]
    grads, times = grad.unbind(), chain.of_steps(grad, durations)
    of_state = grads[-1]
    for step in range(len(grads) - 1, -1, -1):
        of_acted = of_heads.f[step], of_heads.g[step], of_heads.s[step]
        pull(of_state, heads.f[step], heads.g[step], heads.s[step], of_acted)
        of_heads.pull(heads, step, times[step])
        for index in range(len(rest) // 2 - 1, -1, -1):
            above, used = of_z[index + 1][step], z[index][step]
            sums.add(index, above, used)
            below = torch.mm(above, rest[2 * index], out=of_z[index][step])
            torch.ops.aten.tanh_backward.grad_input(below, used, grad_input=below)
        of_state = torch.mm(of_z[0][step], first)
        if step > 0:
            of_state.add_(grads[step - 1])
    return of_state


class _MapGradients:
    """Gradients of W_i and b_i, summed over the steps."""

    def __init__(self, rest: Sequence[Tensor], batch: int) -> None:
        # Sums of rounded products stay accurate in float32.
        self.dtypes = [torch.promote_types(weight.dtype, torch.float32) for weight in rest[::2]]
        pairs = list(zip(rest[::2], self.dtypes, strict=True))
        self.weights = [torch.zeros_like(weight, dtype=dtype) for weight, dtype in pairs]
        self.biases = [weight.new_zeros(batch, len(weight), dtype=dtype) for weight, dtype in pairs]
        self.like = rest[::2]

    def add(self, index: int, grad: Tensor, used: Tensor) -> None:
        """Those of one step, of z ``(B, F)`` and what its map was applied to ``(B, F')``."""
        if grad.dtype == self.dtypes[index]:
            self.weights[index].addmm_(grad.t(), used)
        else:
            self.weights[index] += grad.t() @ used
        self.biases[index].add_(grad)

    def gradients(self) -> list[Tensor]:
        """Of W_2, b_2, W_3, b_3 and so on."""
        found = []
        for weight, bias, like in zip(self.weights, self.biases, self.like, strict=True):
            found += [weight.to(like.dtype), bias.sum(0).to(like.dtype)]
        return found
