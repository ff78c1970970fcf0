"""CfC cells in layers, as a neural circuit policy is wired."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from liquid_ode.cells.base import RecurrentCell
from liquid_ode.cells.cfc.cell import CfCCell, check_form, check_no_solver
from liquid_ode.cells.cfc.forms import CfCForm, GatedForm
from liquid_ode.cells.names import explained
from liquid_ode.cells.wiring.wiring import Wiring


class WiredCfCCell(RecurrentCell):
    """Layers of CfC cells, one for each layer of a wiring: inputs -> inter -> command -> motor.

    Within a step, every layer takes the new state of the one before it: layer l is a
    :class:`CfCCell` without backbone, x'_l = [h_{l-1}, h_l], whose inputs are wired as the wiring
    says and whose neurons all drive each other, as in ncps. (The wiring's own connections within a
    layer are not used: a neuron without them would have no memory.)

    The state is that of all neurons in the order of the wiring, so that ``wiring.motor`` are the
    outputs. ncps orders its state by layers from the inputs on.

    >>> wiring = Wiring.auto_ncp(input_size=8, units=24, motor=3)
    >>> rnn = LiquidRNN(8, 24, cell=WiredCfCCell, wiring=wiring)

    Args:
        input_size: features of x.
        hidden_size: neurons of the wiring.
        wiring: in layers, of which the last in the order of the neurons takes the inputs and
            every other one the states of the next.
        form: as for :class:`CfCCell`.
        mask_time: likewise.
        solver: refused; here so that the error can say why.

    Raises:
        ValueError: where the wiring is missing, of another size or not of that kind.

    Reference: Hasani et al. 2022, and Lechner et al., Neural circuit policies enabling auditable
    autonomy, Nature Machine Intelligence 2020, for the layers.
    """

    wiring: Wiring

    @explained
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        wiring: Wiring | None = None,
        form: CfCForm = GatedForm(),
        mask_time: bool = True,
        solver: None = None,
    ) -> None:
        check_no_solver(type(self), solver)
        check_form(form)
        if not isinstance(wiring, Wiring):
            raise ValueError(
                "a WiredCfCCell needs a wiring in layers, such as Wiring.auto_ncp(...), not "
                f"{wiring!r}; CfCCell does without"
            )
        super().__init__(input_size, hidden_size, wiring)
        self.form = form
        self.layers = nn.ModuleDict()  # in the order of the neurons
        for name, mask in _masks_of_inputs(wiring, input_size).items():
            size, inputs = mask.shape
            wires = Wiring.from_mask(Wiring.full(size).recurrent, mask)
            cell = CfCCell(inputs, size, wiring=wires, form=form, mask_time=mask_time)
            self.layers[name] = cell

    def flow(
        self,
        x: Tensor,
        h0: Tensor | None,
        duration: float | Tensor,
        resets: Tensor | None = None,
    ) -> Tensor:
        # A layer over the whole sequence, then the next: the same as all layers step by step.
        states = []
        durations = duration.squeeze(-1) if isinstance(duration, Tensor) else duration
        anew = None if resets is None else resets.squeeze(-1)
        for name, where in reversed(list(self.wiring.layers.items())):
            start = None if h0 is None else h0[:, where]
            x = self.layers[name](x, start, durations=durations, resets=anew)
            states.append(x)
        return torch.cat(states[::-1], dim=-1)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, form={self.form}, wiring={self.wiring}"


def _masks_of_inputs(wiring: Wiring, input_size: int) -> dict[str, Tensor]:
    """What drives each layer, bool ``(neurons, sources)``; ValueError where that is no chain."""
    recurrent, inputs = wiring.recurrent, wiring.inputs
    if inputs is None:
        inputs = torch.ones(wiring.units, input_size, dtype=torch.bool, device="cpu")
    if inputs.shape[1] != input_size:
        raise ValueError(
            f"the wiring takes {inputs.shape[1]} inputs, the cell has input_size={input_size}"
        )
    names, places = list(wiring.layers), list(wiring.layers.values())
    pairs = zip(names[:-1], places[:-1], places[1:], strict=True)
    masks = {name: recurrent[place, after] for name, place, after in pairs}
    masks[names[-1]] = inputs[places[-1]]
    within = sum(int(recurrent[place, place].sum()) for place in places)
    used = sum(int(mask.sum()) for mask in masks.values())
    if within + used != int(recurrent.sum()) + int(inputs.sum()):
        raise ValueError(
            "the layers of a WiredCfCCell form a chain: the inputs drive "
            f"{names[-1]!r} alone, and every other layer of {names} is driven by the next. This "
            "wiring has other connections; CfCCell takes any wiring"
        )
    return masks
