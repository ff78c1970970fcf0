"""Train on a folder of images of your own, and sample: the whole way in one script.

python examples/train_folder.py path/to/images --size 32 --epochs 20

Folders in the folder are classes. For every setting: liquid-ode train --data folder:PATH --help.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from liquid_ode import DPMSolver, TrainConfig, load_run, train
from liquid_ode.evaluation import save_grid


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of images, in folders or not")
    parser.add_argument("--size", type=int, default=32, help="side in pixels (default: 32)")
    parser.add_argument("--epochs", type=int, default=20, help="(default: 20)")
    parser.add_argument("--batch-size", type=int, default=16, help="(default: 16)")
    parser.add_argument("--output", type=Path, default=Path("runs/folder"), help="the run")
    options = parser.parse_args(arguments)
    config = TrainConfig(
        data=f"folder:{options.folder}",
        image_size=options.size,
        model="liquid_unet",
        solver="semi_implicit_euler",
        prediction="v",
        flip=True,
        lr=1e-3,
        epochs=options.epochs,
        batch_size=options.batch_size,
        output=str(options.output),
    )
    run = train(config)
    images = DPMSolver(10).sample(load_run(run), 16, seeds=0, image_shape=config.image_shape)
    print(f"samples  {save_grid(images.cpu(), run / 'samples.png', 4)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
