"""Training: settings in, a run directory out; and a run directory back as a model.

run = train(TrainConfig(epochs=1))
diffusion = load_run(run)
"""

from .config import TrainConfig
from .engine import train
from .errors import CheckpointError, Interrupted, TrainingError
from .loading import load_config, load_run
from .presets import PRESETS
from .reporting import ConsoleReporter, Reporter

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
