"""Train a sampler of few evaluations on a trained run's own denoiser.

python examples/train_sampler.py runs/unet --evaluations 10
python examples/sample.py runs/unet --sampler learned:runs/unet/sampler-10.safetensors
"""

from liquid_ode.commands.train_sampler import main

if __name__ == "__main__":
    raise SystemExit(main())
