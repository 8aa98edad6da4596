"""The search behind the quickstart's learning rates: each family's medium model at four rates, one
budget.

    python -m launch.sweep --config=experiments/quickstart_rates.py --workdir=runs/quickstart_rates

The "sizes" of this study are learning rates. The best of each family goes into quickstart.py.
"""

from blt_jax.study.config import Size
from experiments import quickstart
from experiments.base import of

RATES = {"r4": 4e-3, "r8": 8e-3, "r16": 1.6e-2, "r32": 3.2e-2}


def get_config(_=""):
    config = quickstart.get_config()
    config.name = "quickstart_rates"
    config.budgets = (2.5e11,)
    for name, family in config.families.items():
        model = quickstart.MODELS[name]["medium"]
        family.sizes = {
            label: of(Size, model=model, learning_rate=rate) for label, rate in RATES.items()
        }
    return config
