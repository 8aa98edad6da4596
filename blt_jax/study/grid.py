"""A study as data: families x sizes x budgets x seeds -> resolved runs with their bytes, steps and
costs.

A pure function of the study and of a few measured facts; needs no device. Before anything is
measured, `assumed_facts` stands in, so that a plan can be looked at first.
"""

import dataclasses
import math
import re

from blt_jax.config import ConfigError, Init
from blt_jax.flops import analytic, match
from blt_jax.patching import Patching
from blt_jax.runs.config import Run
from blt_jax.study.config import Study

CONVENTIONS = ("paper", "exact")  # of costs in a plan; "executed" is a property of a program
# patch slots of a row over its mean number of patches, before the packer has chosen
# (`data/pack.py`)
ROOM = 1.01
SPACE_PATCH = 6.0  # bytes per space patch of English prose (SpaceByte; BLT paper, Table 1)


@dataclasses.dataclass(frozen=True)
class FamilyFacts:
    bytes_per_unit: float  # text bytes per patch or token; 1 for a byte LM
    row_positions: int  # bytes (or tokens) per row
    row_text_bytes: float  # mean text bytes per training row
    index: str  # row index of the training split, within the store
    validation_index: str
    patching: Patching | None  # with its threshold
    measured: bool
    row_patches: int = 0  # patch slots per row; 0: no patches
    calibration: str = ""  # record of the calibration, within the store; "": nothing was calibrated
    sources: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    # by source: `share` of the text bytes read, `readings` of it per `pass_bytes` text bytes; {}:
    # not measured
    pass_bytes: float = 0.0  # text bytes of the index, all rows once


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    name: str
    run: Run
    cost: dict  # what becomes cost.json
    fact: FamilyFacts  # what it stands on


def bytes_per_token(vocab):
    """What to expect of BPE: 3.7 at 32k entries, 4.4 at 128k (Llama 2 and 3), log-linear between
    and beyond.
    """
    return max(1.5, 3.7 + (4.4 - 3.7) * math.log(vocab / 32_000) / math.log(4))


def assumed_facts(study: Study):
    """FamilyFacts from targets and the literature, marked as not measured."""
    found = {}
    for name, family in study.families.items():
        model, patching = next(iter(family.sizes.values())).model, family.patching
        if patching is not None:
            known = {"strided": patching.stride, "space": SPACE_PATCH, "byte": 1.0}
            unit = float(known.get(patching.rule) or patching.target or SPACE_PATCH)
            unit = min(unit, patching.max_length or unit)
        elif model.unit == "token":
            unit = bytes_per_token(model.vocab)
        else:
            unit = 1.0
        rows = study.data.row_bytes
        positions = round(rows / unit) if model.unit == "token" else rows
        where = f"rows/{name}"
        slots = math.ceil(ROOM * rows / unit) if patching is not None else 0
        found[name] = FamilyFacts(
            unit,
            positions,
            float(rows),
            f"{where}/train",
            f"{where}/validation",
            patching,
            False,
            slots,
        )
    return found


def plan(study: Study, facts: dict[str, FamilyFacts]):
    """The study's PlannedRuns by seed, budget, family, size: the distinct programs come first.

    Raises ConfigError when a budget buys no step, or when names repeat or cannot be folders.
    """
    for key in [
        *study.families,
        *(size for family in study.families.values() for size in family.sizes),
    ]:
        if not re.fullmatch(r"\w[\w.+-]*", key):
            raise ConfigError(
                f"families: {key!r} becomes part of folder names: use letters, digits and _ . + -"
            )
    budgets_of = lambda entry: entry.budgets or study.budgets
    entries = [entry for family in study.families.values() for entry in family.sizes.values()]
    planned = [
        _one(study, name, size, budget, seed, facts[name])
        for seed in study.seeds
        for budget in sorted({budget for entry in entries for budget in budgets_of(entry)})
        for name, family in study.families.items()
        for size in sorted(
            family.sizes, key=lambda s: analytic.parameters(family.sizes[s].model)["non_embedding"]
        )
        for _ in range(budgets_of(family.sizes[size]).count(budget))
    ]
    names = [one.name for one in planned]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two runs are called {twice[0]}: budgets or seeds repeat")
    return planned


def _flops_name(value):
    """5e10, 1.6e11: short, without signs or padding."""
    digits, exponent = f"{value:.2e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def _one(study: Study, family, size, budget, seed, fact: FamilyFacts):
    entry = study.families[family].sizes[size]
    model, context = entry.model, study.data.row_bytes
    name = f"{family}-{_flops_name(budget)}-{size}-s{seed}"
    try:
        bought = match.budget_run(
            model,
            budget=budget,
            bytes_per_unit=fact.bytes_per_unit,
            context_bytes=context,
            convention=study.convention,
            bytes_per_step=study.train.rows * fact.row_text_bytes,
            tolerance=math.inf,  # small studies have few steps; cost.json holds the mismatch
        )
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    steps = bought.steps
    forward = {
        convention: analytic.per_byte(
            model, patch_size=fact.bytes_per_unit, context_bytes=context, convention=convention
        )
        for convention in CONVENTIONS
    }
    scored = fact.patching is not None and fact.patching.needs_entropies
    entropy_model = study.entropy_model.size.model
    scoring = {
        convention: scored
        * bought.bytes
        * analytic.per_byte(
            entropy_model, patch_size=1.0, context_bytes=context, convention=convention
        ).total
        for convention in CONVENTIONS
    }
    cost = {
        "budget": budget,
        "convention": study.convention,
        "bytes": bought.bytes,
        "steps": steps,
        "context_bytes": context,
        "bytes_per_unit": fact.bytes_per_unit,
        "unit": model.unit,
        "measured": fact.measured,
        "forward_flops_per_byte": {c: b.as_dict() for c, b in forward.items()},
        "train_flops": {c: analytic.training(b.total) * bought.bytes for c, b in forward.items()},
        "entropy_model_flops": scoring,
        "parameters": analytic.parameters(model),
        "mismatch": bought.mismatch,
    }
    if fact.sources:
        cost["sources"] = {
            source: {
                "share": one["share"],
                "epochs": one["readings"] * bought.bytes / fact.pass_bytes,
            }
            for source, one in fact.sources.items()
        }
    run = Run(
        name=name,
        family=family,
        size=size,
        model=model,
        store="../../store",
        index=f"../../store/{fact.index}",
        validation_index=f"../../store/{fact.validation_index}",
        patching=fact.patching,
        tokenizer=f"../../{tokenizer_file(study, family)}" if model.unit == "token" else "",
        optimizer=dataclasses.replace(
            study.optimizer,
            learning_rate=entry.learning_rate,
            warmup_steps=min(study.optimizer.warmup_steps, round(study.warmup_fraction * steps)),
        ),
        init=study.init if model.unit == "patch" else Init(),
        train=dataclasses.replace(
            study.train,
            steps=steps,
            seed=seed,
            checkpoint_every=-(-steps // study.checkpoints_per_run),
        ),
        mesh=study.mesh,
        data_seed=study.data.seed + seed,
        calibration=f"../../store/{fact.calibration}" if fact.calibration else "",
        budget=budget,
    )
    return PlannedRun(name, run, cost, fact)


def tokenizer_file(study: Study, family):
    """Path of a token family's tokenizer.json within the study's folder."""
    own = study.families[family].tokenizer is not None
    return f"tokenizer/{family}/tokenizer.json" if own else "tokenizer/tokenizer.json"


def table(planned):
    """Rows of the printed plan."""
    return [
        {
            "name": one.name,
            "parameters": one.cost["parameters"]["total"],
            "non_embedding": one.cost["parameters"]["non_embedding"],
            "bytes_per_unit": f"{one.cost['bytes_per_unit']:.2f}/{one.cost['unit']}",
            "FLOPs_per_byte": one.cost["forward_flops_per_byte"][one.cost["convention"]]["total"],
            "bytes": one.cost["bytes"],
            "steps": f"{one.cost['steps']:,}",
            "training_FLOPs": one.cost["train_flops"][one.cost["convention"]],
            "mismatch": f"{one.cost['mismatch']:+.2%}",
        }
        for one in planned
    ]
