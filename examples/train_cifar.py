"""Train a diffusion model on CIFAR-10, or on a folder of images.

python examples/train_cifar.py --solver euler
python examples/train_cifar.py --help
"""

from liquid_ode.training.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
