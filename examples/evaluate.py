"""Measure runs, or sets of images: FD-cnn and KID, contrast, held-out loss, nearest neighbours.

python examples/evaluate.py runs/improved-euler-seed0 pretrained:unet -n 10000
python examples/evaluate.py samples.npz folder/of/images
"""

from liquid_ode.commands.evaluate import main

if __name__ == "__main__":
    raise SystemExit(main())
