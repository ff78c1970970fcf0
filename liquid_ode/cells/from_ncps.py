"""Models of the package ncps as ours, with their weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor, nn

from liquid_ode.cells.base import RecurrentCell
from liquid_ode.cells.cfc.cell import CfCCell
from liquid_ode.cells.cfc.forms import CfCForm, GatedForm, LeCunTanh, NoGateForm, PureForm
from liquid_ode.cells.cfc.wired import WiredCfCCell
from liquid_ode.cells.ltc.cell import SMALLEST, LTCCell, softplus_inverse
from liquid_ode.cells.mixed_memory import MixedMemoryCell
from liquid_ode.cells.network.readout import MotorReadout
from liquid_ode.cells.network.rnn import LiquidRNN
from liquid_ode.cells.wiring.masks import Wired
from liquid_ode.cells.wiring.wiring import Wiring

# ncps' modes.
_FORMS: dict[str, CfCForm] = {
    "default": GatedForm(),
    "no_gate": NoGateForm(),
    "pure": PureForm(),
}
# A clipped parameter may be 0, which a softplus only approaches.
_LEAST = 1e-8


def from_ncps(module: nn.Module) -> RecurrentCell | LiquidRNN:
    """Ours in place of a module of ``ncps.torch``, with a copy of its weights.

    A ``CfCCell``, ``WiredCfCCell`` or ``LTCCell`` becomes the cell of that name, which gives
    states only: an output mapping is left out. A ``CfC`` or ``LTC`` becomes a :class:`LiquidRNN`
    with ncps' output mapping and ``proj_size`` as its projection, and ``timespans`` as
    ``durations``, one for each sample and step. (ncps applies a sample's time to a neuron where
    the batch is as large as the state, and otherwise refuses a batch.) With ``mixed_memory`` its
    cell is a :class:`MixedMemoryCell`, whose state is ncps' pair (h, c) side by side.

    Some things are arranged otherwise:

    - ``return_sequences=False`` is :meth:`LiquidRNN.last`;
    - the state of a wired CfC is ordered as the wiring's neurons are, motor neurons first; ncps
      puts the layer that takes the inputs first and the motor neurons last;
    - positive parameters are a softplus of ours, so that no call has to keep them positive; the
      input mapping of an LTC can always be trained;
    - a module that is frozen as a whole stays so; parameters that are frozen one by one do not.

    >>> rnn = from_ncps(ncps.torch.CfC(20, 50))
    >>> out, h = rnn(x, durations=timespans)

    Raises:
        ValueError: where the module is none of these, has no counterpart here, or has parameters
            for which its own equations break down.
    """
    kinds: dict[str, Callable[[Any], RecurrentCell | LiquidRNN]] = {
        "CfC": _rnn_of_cfc,
        "LTC": _rnn_of_ltc,
        "CfCCell": _cfc,
        "WiredCfCCell": _wired_cfc,
        "LTCCell": _ltc,
    }
    for base in type(module).__mro__:
        if base.__name__ in kinds and base.__module__.split(".")[0] == "ncps":
            ours = kinds[base.__name__](module)
            ours.train(module.training)
            if not any(parameter.requires_grad for parameter in module.parameters()):
                ours.requires_grad_(False)
            return ours
    raise ValueError(
        f"from_ncps takes a module of ncps.torch, one of {', '.join(kinds)}, not "
        f"{type(module).__module__}.{type(module).__name__}"
    )


def _rnn_of_cfc(module: Any) -> LiquidRNN:
    wired = type(module.rnn_cell).__name__ == "WiredCfCCell"
    cell = _wired_cfc(module.rnn_cell) if wired else _cfc(module.rnn_cell)
    parts: list[nn.Module] = []
    if wired and module.rnn_cell.layer_sizes[-1] < cell.hidden_size:
        parts.append(_readout(cell.hidden_size, module.rnn_cell.layer_sizes[-1]))
    if isinstance(module.fc, nn.Linear):
        parts.append(copy.deepcopy(module.fc))
    return _rnn(module, cell, parts)


def _rnn_of_ltc(module: Any) -> LiquidRNN:
    theirs = module.rnn_cell
    weight, bias = (getattr(theirs, name, None) for name in ("output_w", "output_b"))
    whole = theirs.motor_size == theirs.state_size and weight is None
    parts = [] if whole else [_readout(theirs.state_size, theirs.motor_size, weight, bias)]
    return _rnn(module, _ltc(theirs), parts)


def _readout(
    units: int, motor: int, weight: Tensor | None = None, bias: Tensor | None = None
) -> MotorReadout:
    """Of the first neurons, which are motor neurons in ncps also where a wiring names no others."""
    others = {"others": slice(motor, units)} if motor < units else {}
    mask = Wiring.full(units).recurrent
    readout = MotorReadout(Wiring.from_mask(mask, layers={"motor": slice(0, motor), **others}))
    for name, value in {"weight": weight, "bias": bias}.items():
        if value is not None:
            setattr(readout, name, nn.Parameter(value.detach().clone()))
    return readout


def _rnn(module: Any, cell: RecurrentCell, parts: Sequence[nn.Module]) -> LiquidRNN:
    if module.use_mixed:
        cell = _with_memory(module.lstm, cell)
    projection = None
    if parts:
        projection = parts[0] if len(parts) == 1 else nn.Sequential(*parts)
    return LiquidRNN(
        cell.input_size,
        cell.hidden_size,
        cell=lambda input_size, hidden_size: cell,
        batch_first=module.batch_first,
        projection=projection,
    )


@torch.no_grad()
def _with_memory(lstm: Any, inner: RecurrentCell) -> MixedMemoryCell:
    """The cell behind ncps' LSTM, whose gates are g, i, f and o, with 1 added to f."""
    size = inner.hidden_size
    cell = MixedMemoryCell(inner.input_size, size, cell=lambda *_: inner).to(lstm.input_map.weight)
    neurons = torch.arange(size)
    if isinstance(inner, WiredCfCCell):  # whose layers ncps counts from the inputs on
        sizes = [where.stop - where.start for where in inner.wiring.layers.values()][::-1]
        neurons = torch.cat(neurons.split(sizes)[::-1])
    rows = (size * torch.tensor([[1], [2], [0], [3]]) + neurons).flatten()  # i, f, g, o
    cell.gates_of_input.weight.copy_(lstm.input_map.weight[rows])
    cell.gates_of_state.weight.copy_(lstm.recurrent_map.weight[rows][:, neurons])
    cell.gates_of_input.bias.copy_(lstm.input_map.bias[rows])
    cell.gates_of_input.bias[size : 2 * size] += 1
    return cell


def _cfc(theirs: Any) -> CfCCell:
    """A dense cell, or one whose weights ff1 and ff2 have a mask ``(H, I + H)``."""
    wiring = None
    if theirs.sparsity_mask is not None:
        if theirs.backbone_layers > 0:
            raise ValueError(
                "a CfCCell of ncps with a sparsity_mask and a backbone has no counterpart here, "
                "where a wiring is between inputs and neurons"
            )
        of_inputs, of_states = _masks(theirs)
        wiring = Wiring.from_mask(of_states, of_inputs)
    layers = list(theirs.backbone or ())
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    activation = type(layers[1]) if layers else LeCunTanh
    cell = CfCCell(
        theirs.input_size,
        theirs.hidden_size,
        wiring=wiring,
        form=_FORMS[theirs.mode],
        backbone_units=linears[0].out_features if linears else 1,
        backbone_layers=len(linears),
        backbone_dropout=next((one.p for one in layers if isinstance(one, nn.Dropout)), 0.0),
        activation=LeCunTanh if activation.__name__ == "LeCun" else activation,
        mask_time=False,
    ).to(theirs.ff1.weight)
    ours_linear = [layer for layer in cell.backbone if isinstance(layer, nn.Linear)]
    for ours, linear in zip(ours_linear, linears, strict=True):
        ours.load_state_dict(linear.state_dict())
    _copy_heads(theirs, cell)
    return cell


def _wired_cfc(theirs: Any) -> WiredCfCCell:
    """A cell in layers, which ncps counts from the inputs on."""
    of_layers = [getattr(theirs, f"layer_{index}") for index in range(theirs.num_layers)]
    names = [f"layer_{index}" for index in range(len(of_layers))]
    if len(of_layers) == 3:
        names = ["inter", "command", "motor"]
    names[-1] = "motor"
    units = end = sum(layer.hidden_size for layer in of_layers)
    recurrent = torch.zeros(units, units, dtype=torch.bool)
    inputs = torch.zeros(units, of_layers[0].input_size, dtype=torch.bool)
    places: list[slice] = []
    for layer in of_layers:
        place = slice(end - layer.hidden_size, end)
        sources, recurrent[place, place] = _masks(layer)
        if places:
            recurrent[place, places[-1]] = sources
        else:
            inputs[place] = sources
        places.append(place)
        end = place.start
    layers = dict(reversed(list(zip(names, places, strict=True))))
    cell = WiredCfCCell(
        of_layers[0].input_size,
        units,
        wiring=Wiring.from_mask(recurrent, inputs, layers=layers),
        form=_FORMS[of_layers[0].mode],
        mask_time=False,
    ).to(of_layers[0].ff1.weight)
    for name, layer in zip(names, of_layers, strict=True):
        _copy_heads(layer, cast(CfCCell, cell.layers[name]))
    return cell


def _masks(theirs: Any) -> tuple[Tensor, Tensor]:
    """Of inputs and states, from one side by side."""
    mask = theirs.sparsity_mask.detach().cpu() != 0
    return mask[:, : theirs.input_size], mask[:, theirs.input_size :]


@torch.no_grad()
def _copy_heads(theirs: Any, cell: CfCCell) -> None:
    """Copy the maps and vectors of the form; weights outside a mask are never used, so 0."""
    for name in cell.form.maps:
        ours, linear = getattr(cell, name), getattr(theirs, name)
        ours.weight.copy_(linear.weight)
        ours.bias.copy_(linear.bias)
        if isinstance(ours, Wired):
            ours.clear_unwired()
    for name in cell.form.vectors:
        getattr(cell, name).copy_(getattr(theirs, name))


@torch.no_grad()
def _ltc(theirs: Any) -> LTCCell:
    masks = [
        mask.detach().t() != 0 for mask in (theirs.sparsity_mask, theirs.sensory_sparsity_mask)
    ]
    layers = _layers(theirs)
    wiring = None
    if layers is None or len(layers) > 1 or not all(mask.all() for mask in masks):
        wiring = Wiring.from_mask(*masks, layers=layers)
    cell = LTCCell(theirs.sensory_size, theirs.state_size, wiring=wiring).to(theirs.w)
    cell.solver = cell.solver.with_steps(theirs._ode_unfolds)
    for prefix, mask in zip(("", "sensory_"), masks, strict=True):
        cell.get_parameter(f"{prefix}w").copy_(_raw(theirs, f"{prefix}w", mask.t()).t() * mask)
        for name in ("sigma", "mu", "erev"):
            values = getattr(theirs, prefix + name).t()
            cell.get_parameter(prefix + name).copy_(values * mask)
    # What ncps adds to a denominator is as if added to the leak, and its current kept.
    gleak = theirs.make_positive_fn(theirs.gleak)
    cell.vleak.copy_(theirs.vleak * gleak / (gleak + theirs._epsilon))
    cell.gleak.copy_(_raw(theirs, "gleak", add=theirs._epsilon - SMALLEST))
    cell.cm.copy_(_raw(theirs, "cm", add=-SMALLEST))
    for name, absent in {"input_w": 1.0, "input_b": 0.0}.items():
        ours = cell.get_parameter(name)
        ours.copy_(getattr(theirs, name, torch.full_like(ours, absent)))
    return cell


def _raw(theirs: Any, name: str, used: Tensor | None = None, add: float = 0.0) -> Tensor:
    """What a softplus makes ncps' positive parameter."""
    value = theirs.make_positive_fn(getattr(theirs, name).detach())
    negative = value < 0 if used is None else (value < 0) & used
    if negative.any():
        raise ValueError(
            f"{int(negative.sum())} of the LTC's {name} are negative, so that its equations break "
            "down: call its apply_weight_constraints() first, as in training with ncps"
        )
    return softplus_inverse((value + add).clamp_min(_LEAST))


def _layers(theirs: Any) -> dict[str, slice] | None:
    """The kinds of neurons; None where those of a kind are not side by side."""
    layers: dict[str, slice] = {}
    for kind, neurons in groupby(range(theirs.state_size), theirs._wiring.get_type_of_neuron):
        if kind in layers:
            return None
        places = list(neurons)
        layers[kind] = slice(places[0], places[-1] + 1)
    return layers
