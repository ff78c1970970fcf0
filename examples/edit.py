"""What else a trained run does with images: reconstruct, interpolate, vary and fill them in.

python examples/edit.py pretrained:unet
"""

from liquid_ode.commands.edit import main

if __name__ == "__main__":
    raise SystemExit(main())
