"""Training: settings in, a run directory out; and a run directory back as a model.

run = train(TrainConfig(epochs=1))
diffusion = load_run(run)
"""

from liquid_ode.training.config import TrainConfig
from liquid_ode.training.engine import train
from liquid_ode.training.errors import CheckpointError, Interrupted, TrainingError
from liquid_ode.training.loading import load_config, load_run
from liquid_ode.training.presets import PRESETS
from liquid_ode.training.reporting import ConsoleReporter, Reporter

__all__ = [
    "PRESETS",
    "CheckpointError",
    "ConsoleReporter",
    "Interrupted",
    "Reporter",
    "TrainConfig",
    "TrainingError",
    "load_config",
    "load_run",
    "train",
]
