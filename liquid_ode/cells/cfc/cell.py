"""The closed-form continuous-time cell: the time of an ODE without solving one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from liquid_ode.cells.base import RecurrentCell
from liquid_ode.cells.cfc.forms import CfCForm, GatedForm, LeCunTanh
from liquid_ode.cells.cfc.heads import Cast, Folded, Heads, called, structure
from liquid_ode.cells.names import explained
from liquid_ode.cells.wiring.masks import Wired, WiredLinear, check_wired, masks_of, own_parameter
from liquid_ode.cells.wiring.wiring import Wiring, check_count


class CfCCell(RecurrentCell):
    """A closed-form continuous-time (CfC) cell: h1 as an explicit function of x, h0 and duration.

    With x' = backbone([x, h]), linear maps each followed by the activation, and the default form,

        h1 = f (1 - s) + g s,    s = σ(t_a(x') d + t_b(x')),
        f = tanh(W_f x' + b_f),    g = tanh(W_g x' + b_g).

    There is no ODE, so there is no solver, and a duration split in two is two updates, not the
    same one. A duration of 0 is padding: it leaves the state as it is, to the bit, with no gradient
    but that of h0. It is not the limit of short durations, which the closed form takes elsewhere,
    to its values at d = 0. Matrices start Xavier-uniform.

    Parameters are named and shaped as in ncps, whose dense cells' ``state_dict`` loads here as it
    is; :func:`liquid_ode.cells.from_ncps.from_ncps` converts the others.

    >>> rnn = LiquidRNN(20, 50, cell=CfCCell)
    >>> rnn = LiquidRNN(20, 50, cell=functools.partial(CfCCell, form=PureForm()))

    Args:
        input_size: features of x.
        hidden_size: features of the state h.
        wiring: which neurons are connected; None for all. Weights outside it are never used.
            There is no backbone then, as it would connect everything: x' = [x, h].
        form: :class:`GatedForm`, :class:`NoGateForm` or :class:`PureForm`.
        backbone_units: features of each backbone layer.
        backbone_layers: number of them; 1 if None, or 0 with a wiring.
        backbone_dropout: probability of zeroing a feature after each backbone layer but the first,
            as in ncps, in training (or wherever that ``nn.Dropout`` is told to be in training).
        activation: makes the activation of a backbone layer: a class such as ``nn.SiLU``.
        mask_time: whether the wiring also holds for t_a and t_b. ncps masks f and g alone.
        solver: refused; here so that the error can say why.

    Raises:
        ValueError: where an argument is out of range or of another kind, the wiring has another
            size or comes with a backbone, or a solver is given.

    Reference: Hasani et al., Closed-form continuous-time neural networks, Nature Machine
    Intelligence 2022.
    """

    @explained
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        wiring: Wiring | None = None,
        form: CfCForm = GatedForm(),
        backbone_units: int = 128,
        backbone_layers: int | None = None,
        backbone_dropout: float = 0.0,
        activation: Callable[[], nn.Module] = LeCunTanh,
        mask_time: bool = True,
        solver: None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, wiring)
        check_no_solver(type(self), solver)
        check_form(form)
        if backbone_layers is None:
            backbone_layers = 1 if wiring is None else 0
        if backbone_layers != 0:
            check_count("backbone_layers", backbone_layers)
            check_count("backbone_units", backbone_units)
        if backbone_layers and wiring is not None:
            raise ValueError(
                "a backbone connects all inputs and neurons, so with a wiring backbone_layers "
                f"must be 0, not {backbone_layers}"
            )
        if not 0 <= backbone_dropout < 1:
            raise ValueError(f"backbone_dropout must lie in [0, 1), not {backbone_dropout}")
        if backbone_dropout > 0 and backbone_layers < 2:
            warnings.warn(
                f"backbone_dropout={backbone_dropout} acts after each backbone layer but the "
                f"first, so backbone_layers={backbone_layers} leaves it without effect",
                stacklevel=2,
            )
        if not callable(activation) or isinstance(activation, nn.Module):
            raise ValueError(
                f"activation must make modules, as the class nn.SiLU does, not be {activation!r}"
            )
        self.form, self.mask_time = form, mask_time
        layers: list[nn.Module] = []
        width = input_size + hidden_size
        for index in range(backbone_layers):
            act = activation()
            if not isinstance(act, nn.Module):
                raise ValueError(f"activation must make modules, not {act!r}")
            layers += [nn.Linear(width, backbone_units), act]
            if index > 0 and backbone_dropout > 0:
                layers.append(nn.Dropout(backbone_dropout))
            width = backbone_units
        self.backbone = nn.Sequential(*layers)
        self._add_maps(width)
        for name in form.vectors:
            self.register_parameter(name, nn.Parameter(torch.empty(1, hidden_size)))
        self.reset_parameters()

    def _add_maps(self, width: int) -> None:
        mask = self._mask()
        for name in self.form.maps:
            if mask is None or (name.startswith("time") and not self.mask_time):
                self.add_module(name, nn.Linear(width, self.hidden_size))
            else:
                self.add_module(name, WiredLinear(width, self.hidden_size, mask))
        maps = {name: getattr(self, name) for name in self.form.maps}
        self._wired_maps = [name for name, layer in maps.items() if isinstance(layer, Wired)]
        self._made_of = structure([self.backbone, *maps.values()])

    def reset_parameters(self) -> None:
        """Draw the weights anew.

        Raises:
            ValueError: where one was replaced by what is made of others.
        """
        layers = [module for module in self.modules() if isinstance(module, nn.Linear)]
        for layer in layers:
            own_parameter(layer, "bias")
            own_parameter(layer, "weight")
            layer.reset_parameters()
        vectors = [own_parameter(self, name) for name in self.form.vectors]
        for parameter in [*vectors, *(layer.weight for layer in layers)]:
            nn.init.xavier_uniform_(parameter)
        for layer in layers:
            if isinstance(layer, Wired):
                layer.clear_unwired()

    def flow(
        self,
        x: Tensor,
        h0: Tensor | None,
        duration: float | Tensor,
        resets: Tensor | None = None,
    ) -> Tensor:
        h = x.new_zeros(x.shape[1], self.hidden_size) if h0 is None else h0
        alike = None if isinstance(duration, Tensor) else float(duration)
        if alike == 0:
            kept = h.repeat(x.shape[0], 1, 1)  # not h0 itself
            return kept if resets is None else kept.masked_fill(resets.cumsum(0) > 0, 0)
        heads = self._heads(x, alike)
        vectors = Cast([getattr(self, name) for name in self.form.vectors])
        times: Sequence[float | Tensor] = [cast(float, duration)] * len(x)
        passing: Sequence[Tensor | None] = [None] * len(x)
        if isinstance(duration, Tensor):
            times, passing = duration.unbind(), (duration > 0).unbind()
        anew: Sequence[Tensor | None] = [None] * len(x) if resets is None else resets.unbind()
        states = []
        for step, (time, passes, restarts) in enumerate(zip(times, passing, anew, strict=True)):
            if restarts is not None:
                h = h.masked_fill(restarts, 0)
            z = heads(step, h)
            own = vectors.at(step, z.dtype)
            of_step = time.to(z.dtype) if isinstance(time, Tensor) else time
            new = self.form.state(z, of_step, own, self.hidden_size)
            h = new if passes is None else torch.where(passes, new, h.to(new.dtype))
            states.append(h)
        return torch.stack(states)

    def _heads(self, x: Tensor, alike: float | None) -> Heads:
        maps = {name: getattr(self, name) for name in self.form.maps}
        for name in self._wired_maps:
            check_wired(name, maps[name])
        # Folding is more than one step saves, and is not for compilers to look into.
        folds = len(x) > 1 and not torch.compiler.is_compiling()
        if folds and structure([self.backbone, *maps.values()]) == self._made_of:
            return Folded(x, self.backbone, maps, self.form, alike)
        return called(x, self.backbone, maps, self.form, alike)

    def _mask(self) -> Tensor | None:
        """Of the linear maps of [x, h]."""
        recurrent, inputs = masks_of(self.wiring)
        if recurrent is None and inputs is None:
            return None
        mask = torch.ones(
            self.hidden_size, self.input_size + self.hidden_size, dtype=torch.bool, device="cpu"
        )
        if inputs is not None:
            mask[:, : self.input_size] = inputs
        if recurrent is not None:
            mask[:, self.input_size :] = recurrent
        return mask

    def extra_repr(self) -> str:
        wiring = "" if self.wiring is None else f", wiring={self.wiring}"
        return f"{self.input_size}, {self.hidden_size}, form={self.form}{wiring}"


def check_no_solver(cell: type, solver: object) -> None:
    """Raise ValueError where a solver is given to a cell that has no use for one."""
    if solver is not None:
        raise ValueError(
            f"{cell.__name__} is a closed form, with no ODE to solve: leave out solver={solver!r}, "
            "or take LTCCell, whose dynamics it approximates"
        )


def check_form(form: object) -> None:
    """Raise ValueError where this is no form of a CfC cell."""
    if not isinstance(form, CfCForm):
        raise ValueError(
            f"form must be a form such as GatedForm(), NoGateForm() or PureForm(), not {form!r}"
        )
