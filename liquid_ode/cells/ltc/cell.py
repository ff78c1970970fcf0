"""The liquid time-constant cell: neurons with a leak and sigmoid synapses.

C_j dv_j/dt = G_j (E_leak,j - v_j) + Σ_i w_ji σ(σ_ji (v_i - μ_ji)) (E_ji - v_j)
            + the same sum over the inputs.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from liquid_ode.cells.ltc.conductance import SynapseGradients, Synapses
from liquid_ode.cells.ltc.short_steps import ShortSteps
from liquid_ode.cells.names import explained
from liquid_ode.cells.ode import ODECell, of_each
from liquid_ode.cells.wiring.masks import masks_of, own_parameter
from liquid_ode.cells.wiring.wiring import Wiring
from solvers import (
    PullbackFunction,
    QuasilinearField,
    SemiImplicitEuler,
    Solver,
    SolverError,
    Uniform,
)
from solvers.checks import holds
from solvers.solution import all_finite

# No membrane is without leak or capacitance, whatever the weights become.
SMALLEST = 1e-8


# Openings of an evaluation up to which a layer is small; and how many have their gradient made
# together, so that the Jacobians stay in the cache.
_SMALL, _TOGETHER = 2**14, 2**18
_SYNAPSE = ("w", "sigma", "mu", "erev")


class Conductances(PullbackFunction):
    """Target and gain of the neurons for one input.

    gain = base gain + Σ_i w_ji s_ji, target = (base drive + Σ_i w_ji E_ji s_ji) / gain, with
    s_ji = σ(a_ji v_i + c_ji). The base is the part of the leak and of the inputs, computed once.

    Args:
        synapses: between the neurons.
        base: gain, positive, and drive that do not depend on the state, ``(B, 2, hidden)``.
    """

    def __init__(self, synapses: Synapses, base: Tensor) -> None:
        self.synapses, self.base = synapses, base

    def __call__(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        gain, drive = self.synapses.sums(y, self.base.transpose(0, 1)).unbind()
        return drive / gain, gain

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return *self.synapses.tensors, self.base

    def with_tensors(self, *tensors: Tensor) -> Conductances:
        """A copy, also of what a subclass added, with other tensors."""
        other = copy.copy(self)
        lines, weights, other.base = tensors
        other.synapses = Synapses(lines, weights)
        return other

    def select(self, rows: Tensor | slice) -> Conductances:
        return self.with_tensors(*self.synapses.tensors, self.base[rows])

    def pullback(self) -> _LTCPullback:
        return _LTCPullback(self.synapses, self.base)


class LTCField(QuasilinearField):
    """The dynamics of an LTC cell for one input: rate gain(v) (target(v) - v).

    Args:
        synapses, base: see :class:`Conductances`.
        rate: 1/C, times the duration where every sample runs over (0, 1): ``(B, hidden)``.
    """

    def __init__(self, synapses: Synapses, base: Tensor, rate: Tensor) -> None:
        # Not checked as a field of a user's is: the cell's parameterisation keeps the rate
        # positive, and looking again would cost a synchronisation on an accelerator.
        self.function = Conductances(synapses, base)
        self.rate = rate


class _LTCPullback:
    """Gradients through drive / gain and gain."""

    def __init__(self, synapses: Synapses, base: Tensor) -> None:
        self.synapses = synapses
        self.of_synapses = SynapseGradients(*synapses.tensors)
        self.of_base = torch.zeros_like(base.transpose(0, 1))  # (2, B, H)

    def pull(
        self, y: Tensor, values: tuple[Tensor, ...], grads: tuple[Tensor, ...], base: Tensor
    ) -> Tensor:
        (target, gain), (target_grad, gain_grad) = values, grads
        of_drive = torch.div(target_grad, gain, out=target_grad)
        of_gain = gain_grad.addcmul_(of_drive, target, value=-1)
        of_sums = torch.stack((of_gain, of_drive))  # (2, B, H)
        self.of_base.add_(of_sums)
        return self.synapses.backward(y, of_sums, self.of_synapses, base)

    def gradients(self) -> tuple[Tensor, ...]:
        return *self.of_synapses.tensors, self.of_base.transpose(0, 1)


class LTCCell(ODECell):
    """A liquid time-constant cell, driven by an injected solver.

    With v the membrane potentials, x' = input_w x + input_b the mapped inputs, and
    s = σ(sigma (v - mu)) the opening of a synapse,

    cm dv/dt = gleak (vleak - v) + Σ w s (erev - v) + Σ sensory_w sensory_s (sensory_erev - v).

    The conductances gleak, w, sensory_w and the capacitance cm are positive by a softplus of the
    parameters of these names. Semi-implicit Euler, the default with the 6 steps of the
    reference, is the fused update of the paper; every other solver drives the same equation,
    whose time constants cm / gain are small. Explicit ones with equal steps diverge where a step
    is longer than twice that, which is an error: at the start take 8 steps for each 16 synapses
    of a neuron and unit of time, or error control.

    Args:
        input_size: features of x.
        hidden_size: neurons.
        solver: any solver of :mod:`solvers` but those for time constants that do not depend on
            the state (``etdrk2``, ``etdrk4``).
        wiring: which synapses there are; None for all. The parameters of others are never used.

    Raises:
        ValueError: where a size is below 1, the wiring has another size, or the solver is none.
        SolverError: on use, where the solver's steps are too long for it.

    Reference: Hasani et al., Liquid time-constant networks, AAAI 2021, algorithm 1; the synapses
    are those of Lechner et al., Neural circuit policies, Nature Machine Intelligence 2020.
    """

    gleak: Tensor
    vleak: Tensor
    cm: Tensor
    erev: Tensor
    sensory_erev: Tensor

    @explained
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        solver: Solver = SemiImplicitEuler(steps=6),
        wiring: Wiring | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, solver, wiring)
        for name in ("gleak", "vleak", "cm"):
            self.register_parameter(name, nn.Parameter(torch.empty(hidden_size)))
        for prefix, sources in (("", hidden_size), ("sensory_", input_size)):
            for name in _SYNAPSE:
                values = nn.Parameter(torch.empty(hidden_size, sources))
                self.register_parameter(prefix + name, values)
        self.input_w = nn.Parameter(torch.ones(input_size))
        self.input_b = nn.Parameter(torch.zeros(input_size))
        for prefix, mask in zip(("", "sensory_"), masks_of(wiring), strict=True):
            self.wire(mask, *(prefix + name for name in _SYNAPSE))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew, from the ranges of the reference implementation.

        gleak and w from (0.001, 1), vleak from (-0.2, 0.2), cm from (0.4, 0.6), sigma from (3, 8),
        mu from (0.3, 0.8); two thirds of the synapses are excitatory, erev = 1, the others
        inhibitory, erev = -1.

        Raises:
            ValueError: where one was replaced by what is made of others.
        """

        def own(name: str) -> nn.Parameter:
            return own_parameter(self, name)

        with torch.no_grad():
            own("gleak").copy_(softplus_inverse(torch.empty_like(self.gleak).uniform_(1e-3, 1)))
            own("cm").copy_(softplus_inverse(torch.empty_like(self.cm).uniform_(0.4, 0.6)))
            own("vleak").uniform_(-0.2, 0.2)
            own("input_w").fill_(1.0)
            own("input_b").zero_()
            for prefix in ("", "sensory_"):
                w, sigma, mu, erev = (own(prefix + name) for name in _SYNAPSE)
                w.copy_(softplus_inverse(torch.empty_like(w).uniform_(1e-3, 1)))
                sigma.uniform_(3, 8)
                mu.uniform_(0.3, 0.8)
                erev.bernoulli_(2 / 3).mul_(2).sub_(1)
        self.clear_unwired()

    def fields_in_unit_time(self, x: Tensor, durations: Tensor) -> Sequence[LTCField]:
        return self.fields(x, durations)

    def fields(self, x: Tensor, durations: Tensor | None = None) -> Sequence[LTCField]:
        steps, batch = x.shape[:2]
        mapped = torch.addcmul(self.input_b, x, self.input_w).flatten(0, 1)  # (T B, I)
        synapses = self._synapses("")
        sensory = self._synapses("sensory_")
        gleak = _positive(self.gleak)
        leak = torch.stack((gleak, gleak * self.vleak)).unsqueeze(1)  # (2, 1, H)
        sums = sensory.sums(mapped, leak)
        base = of_each(sums.unflatten(1, (steps, batch)).permute(1, 2, 0, 3))  # T of (B, 2, H)
        per_time = _positive(self.cm).reciprocal()
        rates: Sequence[Tensor]
        if durations is None:
            rates = [per_time.expand(batch, -1)] * steps
        else:
            rates = of_each(durations.to(per_time.dtype) * per_time)
        return [LTCField(synapses, *of_one) for of_one in zip(base, rates, strict=True)]

    def flow(
        self,
        x: Tensor,
        h0: Tensor | None,
        duration: float | Tensor,
        resets: Tensor | None = None,
    ) -> Tensor:
        states = None
        if resets is None:
            states = self._in_short_steps(x, h0, duration)
        elif h0 is not None:
            h0 = h0.masked_fill(resets[0], 0)  # what is not used may be NaN
        if states is None or not all_finite(states.detach()):  # the solver says what is wrong
            states = super().flow(x, h0, duration, resets)
        if states.numel() == 0:
            return states
        # The dynamics keep every potential between the least and the largest of these.
        ends = [self.vleak, self.erev, self.sensory_erev, *(() if h0 is None else (h0,))]
        low = torch.stack([each.detach().amin() for each in ends]).amin()
        high = torch.stack([each.detach().amax() for each in ends]).amax()
        if holds((states.detach() - (low + high) / 2).abs().amax() <= 2 * (high - low)) is False:
            raise SolverError(
                f"the states left the range [{low:g}, {high:g}], in which the dynamics of an LTC "
                f"keep them, far behind: the steps of {self.solver} are too long for its time "
                "constants. Take solvers.SemiImplicitEuler(steps=6), error control such as "
                "solvers.Tsit5(), or more steps"
            )
        return states

    def _in_short_steps(
        self, x: Tensor, h0: Tensor | None, duration: float | Tensor
    ) -> Tensor | None:
        """The states of a small layer under the solver of the reference; None of any other."""
        if torch.compiler.is_compiling():  # for which the batch may be of any size
            return None
        rule = getattr(self.solver, "step_size", None)
        if not isinstance(rule, Uniform) or self.solver != SemiImplicitEuler(rule.steps):
            return None
        openings = x.shape[1] * self.hidden_size**2  # of one evaluation
        if not 0 < openings <= _SMALL:
            return None
        fields = self.fields(x, duration if isinstance(duration, Tensor) else None)
        made = {(type(each), type(each.function)) for each in fields}
        if made != {(LTCField, Conductances)}:
            return None
        rest = torch.zeros_like(cast(Tensor, fields[0].rate))
        if rest.dtype not in (torch.float32, torch.float64):
            return None
        functions = [cast(Conductances, each.function) for each in fields]
        base = torch.stack([each.base for each in functions]).transpose(1, 2)
        span = 1.0 if isinstance(duration, Tensor) else float(duration)
        ratio = torch.stack([cast(Tensor, each.rate) for each in fields]) * (span / rule.steps)
        y, states = rest if h0 is None else h0.to(rest.dtype), []
        length = max(1, _TOGETHER // (rule.steps * openings))
        for of_some in zip(base.split(length), ratio.split(length), strict=True):
            states.append(ShortSteps(rule.steps)(y, *of_some, *functions[0].synapses.tensors))
            y = states[-1][-1]
        return torch.cat(states)

    def time_constant(self, x: Tensor, h: Tensor) -> Tensor:
        """τ = cm / gain, of the inputs x and the state h: ``(*batch, hidden_size)``, positive."""
        self._features(x)
        self._check_state(h, (*x.shape[:-1], self.hidden_size), x)
        flat = x.reshape(-1, self.input_size)
        field = self.fields(flat.unsqueeze(0))[0]
        _, gain = field.leak(flat.new_zeros(()), h.reshape(-1, self.hidden_size))
        return (_positive(self.cm) / gain).reshape(h.shape)

    def _synapses(self, prefix: str) -> Synapses:
        w, sigma, mu, erev = (getattr(self, prefix + name) for name in _SYNAPSE)
        return Synapses.of(sigma, mu, self.masked(f"{prefix}w", F.softplus(w)), erev)


def _positive(x: Tensor) -> Tensor:
    return F.softplus(x) + SMALLEST


def softplus_inverse(y: Tensor) -> Tensor:
    """x with softplus(x) = y."""
    return y + torch.log(-torch.expm1(-y))
