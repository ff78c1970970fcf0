"""The metrics of a run for TensorBoard, by Accelerate's tracker."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from liquid_ode.training.reporting import Moment, Reporter


class TensorBoard(Reporter):
    """Writes the lines of metrics, and each epoch's mean loss, to ``RUN/tensorboard``.

    A resumed run goes on after its last checkpoint, and what had been written later is dropped.

    Raises:
        ValueError: the package tensorboard is not installed.
    """

    def __init__(self) -> None:
        from accelerate.utils import (  # type: ignore[import-untyped]
            is_tensorboard_available,
        )

        if not is_tensorboard_available():
            raise ValueError(
                "--tensorboard needs the package tensorboard, which is not installed: "
                "pip install tensorboard"
            )
        self._tracker: Any = None

    def start(self, facts: Mapping[str, str], moment: Moment) -> None:
        from accelerate.tracking import TensorBoardTracker  # type: ignore[import-untyped]

        self._tracker = TensorBoardTracker(
            "tensorboard", str(moment.run_dir), purge_step=moment.step + 1
        )
        if hasattr(self._tracker, "start"):  # in newer versions; the older have started it
            self._tracker.start()

    def metrics(self, record: Mapping[str, Any]) -> None:
        values = {name: value for name, value in record.items() if name != "step"}
        self._tracker.log(values, step=record["step"])

    def epoch(self, moment: Moment) -> None:
        if self._tracker is not None and math.isfinite(moment.loss):
            self._tracker.log({"loss of the epoch": moment.loss}, step=moment.step)

    def close(self) -> None:
        if self._tracker is not None:
            self._tracker.finish()
