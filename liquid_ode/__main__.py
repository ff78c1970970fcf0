"""``python -m liquid_ode``: the same as the command ``liquid-ode``."""

from liquid_ode.commands import main

if __name__ == "__main__":
    raise SystemExit(main())
