"""What the processes of a run tell each other in every step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from liquid_ode.training.signals import Requests

if TYPE_CHECKING:
    from liquid_ode.training.machine import Accelerator


class Exchange:
    """The loss of all processes, and what any of them was asked for by a signal.

    Enter it to note signals.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._several = accelerator.num_processes > 1
        self._requests = Requests()
        self._agreed: tuple[int | None, bool] = (None, False)  # what all processes know of

    def __enter__(self) -> Exchange:
        self._requests.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._requests.__exit__(*exception)

    def agree(self, loss: Tensor, norm: Tensor) -> tuple[float, float]:
        """The mean loss of all processes, and the norm, which is the same in all.

        (One wait for the device, and one exchange, in a step.)
        """
        values = torch.stack([loss.float(), norm.float()])
        if self._several:
            asked = [float(self._requests.stop or 0), float(self._requests.save)]
            row = torch.cat([values, values.new_tensor(asked)])
            table = self._accelerator.gather(row).view(-1, 4)
            values = table[:, :2].mean(0)
            stop, save = table[:, 2:].amax(0).tolist()
            self._agreed = int(stop) or None, bool(save)
        loss_value, norm_value = values.tolist()
        return loss_value, norm_value

    def wait(self) -> None:
        """Wait for all processes, and hear what they were asked for meanwhile."""
        if self._several:
            self._accelerator.wait_for_everyone()
            zero = torch.zeros((), device=self._accelerator.device)
            self.agree(zero, zero)

    @property
    def stop(self) -> int:
        """The number of the signal on which to stop now, else 0; the same in all processes."""
        return (self._agreed[0] if self._several else self._requests.stop) or 0

    @property
    def save(self) -> bool:
        """Whether to save now; the same in all processes."""
        return self._agreed[1] if self._several else self._requests.save

    def stop_is_coming(self) -> bool:
        """Whether this process has been asked to stop, which the others may not know yet."""
        return self._requests.stop is not None

    def saved(self) -> None:
        """What was asked for has been done."""
        self._requests.save, self._agreed = False, (self._agreed[0], False)
