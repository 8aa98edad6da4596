"""All laws that a table of runs bears, from its file alone; what cannot be fitted is refused in a
sentence.
"""

import dataclasses
from itertools import combinations

from blt_jax.config import ConfigError
from blt_jax.scaling import bootstrap, law_fit, points
from blt_jax.scaling.laws import frontier, isoflop
from blt_jax.scaling.laws import patch as patch_laws

DRAWS, SEED = 400, 0  # of a report's bootstrap
# Most fields first: a table bears the laws of the first line that it has all fields of.
WANTED = (
    ("params", "data", "flops", "bpb", "patch"),
    ("params", "data", "flops", "bpb"),
    ("flops", "bpb"),
)


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why `law` was not fitted to `families`, in a sentence."""

    law: str
    families: tuple[str, ...]
    words: str


@dataclasses.dataclass(frozen=True, eq=False)
class Laws:
    """What was fitted, by family; crossings start with the `best` family, the one of lowest BPB at
    its last budget.
    """

    frontiers: dict  # family -> FrontierFit
    isoflops: dict  # family -> IsoflopFit
    chinchillas: dict  # family -> LawFit
    crossings: tuple[frontier.Crossing, ...]
    patch: patch_laws.PatchFit | None  # over all families
    answer: patch_laws.Answer | None  # best patch and size at the largest budget
    best: str | None
    refused: tuple[Refusal, ...]
    bootstrap: dict


def read(path, *, rename=None, convention="exact"):
    """Points with every field of a law that the file has (`loss` and `bpb` are one). Raises
    ConfigError as points.load.

    A table needs flops and bpb, or what they follow from.
    """
    rename = _one_loss(rename)
    for fields in WANTED:
        try:
            table = points.load(path, fields, rename=rename, convention=convention)
        except ConfigError:
            if fields == WANTED[-1]:
                raise
        else:
            return dataclasses.replace(table, values=table.values | {"loss": table["bpb"]})


def measure(path, rename=None):
    """What the table's losses are: "bits per byte" where a column is, or is named for, bpb; else
    "loss".
    """
    return (
        "bits per byte"
        if "bpb" in {**(rename or {}), **dict.fromkeys(points.columns(path))}
        else "loss"
    )


def _one_loss(rename):
    """A column named for `loss` serves as bpb too."""
    rename = dict(rename or {})
    return rename if "loss" not in rename else {"bpb": rename.pop("loss")} | rename


def scored(path, table, *, rename=None, convention="exact"):
    """The same Points with the FLOPs of scoring the bytes by the entropy model added; None where
    that adds nothing.
    """
    try:
        full = points.load(
            path, WANTED[-1], rename=_one_loss(rename), convention=convention, entropy_model=True
        )
    except ConfigError:
        return None
    return full if (full["flops"] > table["flops"]).any() else None


def fit_all(table, *, draws=DRAWS, seed=SEED):
    """Laws of a table from `read`. Every family has bootstrap draws of its own."""
    refused = []

    def attempt(law, families, needs, one):
        lacking = [field for field in needs if field not in table.values]
        if lacking:
            told = " and ".join(f"{field} ({points.FIELDS[field]})" for field in lacking)
            refused.append(Refusal(law, families, f"the table has no {told}"))
            return None
        try:
            return one()
        except ConfigError as error:
            refused.append(Refusal(law, families, _sentence(error, table.path, families)))
            return None

    def by_family(law, needs, one):
        found = {}
        for i, family in enumerate(table.families()):
            own = table.of(family)
            found[family] = attempt(
                law, (family,), needs, lambda own=own, i=i: one(own, draws=draws, seed=[seed, i])
            )
        return {family: law for family, law in found.items() if law is not None}

    frontiers = by_family("frontier", ("flops", "bpb"), frontier.fit_frontier)
    isoflops = by_family("isoFLOP", ("params", "data"), isoflop.fit)
    chinchillas = by_family(
        "Chinchilla",
        ("params", "data"),
        lambda own, **how: law_fit.fit(law_fit.CHINCHILLA, own, **how),
    )
    best = min(frontiers, key=lambda family: frontiers[family].points[-1].bpb.value, default=None)
    order = [best, *(family for family in frontiers if family != best)]
    crossings = tuple(
        frontier.crossing(frontiers[a], frontiers[b]) for a, b in combinations(order, 2)
    )
    if not crossings:
        word = "it takes the frontier laws of two families"
        refused.append(Refusal("FLOPs saved at equal BPB", tuple(table.families()), word))
    patch = attempt(
        "patch size",
        tuple(table.families()),
        ("params", "data", "patch"),
        lambda: patch_laws.fit_patch_laws(table, draws=draws, seed=seed),
    )
    answer = patch and patch_laws.answer(patch, table.budget.max())
    told = {"draws": draws, "seed": seed, "level": bootstrap.LEVEL, "over": "runs and seeds"}
    return Laws(
        frontiers, isoflops, chinchillas, crossings, patch, answer, best, _together(refused), told
    )


def _sentence(error, path, families):
    """A fit's complaint without the file and the family: the report names them beside it."""
    told = str(error)
    for head in (path, *(f"family {family}" for family in families)):
        told = told.removeprefix(head).lstrip(":, ")
    return told


def _together(refused):
    """Refusals of one law with the same words as one."""
    groups = {}
    for one in refused:
        groups.setdefault((one.law, one.words), []).extend(one.families)
    return tuple(Refusal(law, tuple(families), words) for (law, words), families in groups.items())
