"""Liquid cells: vector fields of recurrent networks, integrated by an injected solver."""

from liquid_ode.cells.cell import ODECell, RecurrentCell
from liquid_ode.cells.conv import ConvLiquidCell, ConvLiquidField
from liquid_ode.cells.liquid import LiquidCell, LiquidField
from liquid_ode.cells.ltc import LTCCell, LTCField
from liquid_ode.cells.rnn import LiquidRNN
from liquid_ode.cells.wiring import Wiring

__all__ = [
    "ConvLiquidCell",
    "ConvLiquidField",
    "LTCCell",
    "LTCField",
    "LiquidCell",
    "LiquidField",
    "LiquidRNN",
    "ODECell",
    "RecurrentCell",
    "Wiring",
]
