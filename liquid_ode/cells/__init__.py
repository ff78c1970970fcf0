"""Liquid cells: vector fields of recurrent networks, integrated by an injected solver."""

from liquid_ode.cells.cell import ODECell, RecurrentCell
from liquid_ode.cells.cfc import CfCCell
from liquid_ode.cells.cfc_forms import GatedForm, LeCunTanh, NoGateForm, PureForm
from liquid_ode.cells.cfc_wired import WiredCfCCell
from liquid_ode.cells.conv import ConvLiquidCell, ConvLiquidField
from liquid_ode.cells.liquid import LiquidCell, LiquidField
from liquid_ode.cells.ltc import LTCCell, LTCField
from liquid_ode.cells.ncps import from_ncps
from liquid_ode.cells.rnn import LiquidRNN
from liquid_ode.cells.wiring import Wiring

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
    "NoGateForm",
    "ODECell",
    "PureForm",
    "RecurrentCell",
    "WiredCfCCell",
    "Wiring",
    "from_ncps",
]
