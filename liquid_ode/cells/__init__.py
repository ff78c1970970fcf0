"""Liquid cells: vector fields of recurrent networks, integrated by an injected solver."""

from liquid_ode.cells.base import RecurrentCell
from liquid_ode.cells.cfc.cell import CfCCell
from liquid_ode.cells.cfc.forms import GatedForm, LeCunTanh, NoGateForm, PureForm
from liquid_ode.cells.cfc.wired import WiredCfCCell
from liquid_ode.cells.from_ncps import from_ncps
from liquid_ode.cells.liquid.cell import LiquidCell, LiquidField
from liquid_ode.cells.liquid.conv import ConvLiquidCell, ConvLiquidField
from liquid_ode.cells.ltc.cell import LTCCell, LTCField
from liquid_ode.cells.mixed_memory import MixedMemoryCell
from liquid_ode.cells.network.readout import MotorReadout
from liquid_ode.cells.network.rnn import LiquidRNN
from liquid_ode.cells.ode import ODECell
from liquid_ode.cells.wiring.masks import WiredConv2d, WiredLinear
from liquid_ode.cells.wiring.wiring import Wiring

__all__ = [
    "CfCCell",
    "ConvLiquidCell",
    "ConvLiquidField",
    "GatedForm",
    "LTCCell",
    "LTCField",
    "LeCunTanh",
    "LiquidCell",
    "LiquidField",
    "LiquidRNN",
    "MixedMemoryCell",
    "MotorReadout",
    "NoGateForm",
    "ODECell",
    "PureForm",
    "RecurrentCell",
    "WiredCfCCell",
    "WiredConv2d",
    "WiredLinear",
    "Wiring",
    "from_ncps",
]
