"""Training from Python: a data set, a model and a solver of your own, and a callback.

python examples/train_from_python.py
"""

import torch
from torch.utils.data import TensorDataset

import solvers
from liquid_ode import TrainConfig, create_model, load_run, train
from liquid_ode.training import Moment, Reporter


class Loss(Reporter):
    """A callback: told after every step."""

    def step(self, moment: Moment) -> None:
        if moment.step % 20 == 0:
            print(f"step {moment.step:4}  loss {moment.loss:.3f}")


def main(output: str = "runs/from-python", steps: int = 100) -> int:
    images = torch.zeros(64, 3, 16, 16, dtype=torch.uint8)
    for index, image in enumerate(images):  # a bright square somewhere
        image[:, index % 8 : index % 8 + 6, index // 8 : index // 8 + 6] = 200
    solver = solvers.get("etdrk2", steps=2)
    model = create_model("liquid_unet", widths=(8, 8), solver=solver)  # or any nn.Module
    config = TrainConfig(
        image_size=16, lr=2e-3, max_steps=steps, epochs=100, samples=16, output=output
    )
    run = train(
        config, dataset=TensorDataset(images), model=model, reporter=Reporter(), callbacks=[Loss()]
    )
    print(load_run(run, model=model))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
