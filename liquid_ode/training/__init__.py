"""Training: settings in, a run directory out; and a run directory back as a model.

run = train(TrainConfig(epochs=1))
diffusion = load_run(run)
"""

from liquid_ode.training.config import PRESETS, TrainConfig
from liquid_ode.training.errors import CheckpointError, Interrupted, TrainingError
from liquid_ode.training.evaluating import EpochEvaluation
from liquid_ode.training.loading import load_config, load_pretrained, load_run
from liquid_ode.training.lock import InUseError
from liquid_ode.training.reporting import ConsoleReporter, Moment, Reporter
from liquid_ode.training.run import train
from liquid_ode.training.sharing import share_run

__all__ = [
    "PRESETS",
    "CheckpointError",
    "ConsoleReporter",
    "EpochEvaluation",
    "InUseError",
    "Interrupted",
    "Moment",
    "Reporter",
    "TrainConfig",
    "TrainingError",
    "load_config",
    "load_pretrained",
    "load_run",
    "share_run",
    "train",
]
