"""The counters of a run: saved with its state, so that a resumed run logs the same lines."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Interval:
    """Sums over the steps since the last line of metrics, or since the epoch began."""

    steps: int = 0
    losses: float = 0.0
    norms: float = 0.0
    seconds: float = 0.0  # of the steps alone, without samples and checkpoints

    def add(self, loss: float, norm: float, seconds: float) -> None:
        self.steps += 1
        self.losses += loss
        self.norms += norm
        self.seconds += seconds

    @property
    def loss(self) -> float:
        return self.losses / max(self.steps, 1)

    @property
    def norm(self) -> float:
        return self.norms / max(self.steps, 1)

    def images_per_second(self, images_per_step: int) -> float:
        return self.steps * images_per_step / max(self.seconds, 1e-9)


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0  # optimizer steps made
    seconds: float = 0.0  # in all sessions
    interval: Interval = field(default_factory=Interval)
    epoch: Interval = field(default_factory=Interval)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Progress:
        return cls(
            saved["step"],
            saved["seconds"],
            Interval(**saved["interval"]),
            Interval(**saved["epoch"]),
        )
