"""Bits per dimension of images under a trained run, with the convergence of the figure.

python examples/likelihood.py pretrained:unet -n 64 --steps 8 16
"""

from liquid_ode.commands.likelihood import main

if __name__ == "__main__":
    raise SystemExit(main())
