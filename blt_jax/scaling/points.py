"""A table of runs for fitting: a report's points.csv, or a person's own CSV or JSON. Every message
about a mistake names its line.

Fields of a law are found under their own name, or where our report keeps them
(`columns_of_report`), or where `rename` says. What can be derived is, and the notes say so: data =
flops / (6 params), and its inverse.
"""

import csv
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blt_jax import storage
from blt_jax.config import ConfigError

SAME_BUDGET = 1.1  # without a column `budget`, runs within this factor of FLOPs belong to one
# What a field means. All are positive numbers.
FIELDS = {
    "params": "parameters, non-embedding",
    "data": "training data, in bytes or tokens",
    "flops": "training FLOPs",
    "loss": "loss or bits per byte",
    "bpb": "bits per byte",
    "patch": "mean bytes per patch or token",
}


def columns_of_report(convention: str) -> dict[str, str]:
    """{field: column} of our report's points.csv, FLOPs in the named convention (`exact` or
    `paper`).
    """
    return {
        "params": "non_embedding_parameters",
        "data": "train_text_bytes",
        "flops": f"train_flops_{convention}",
        "loss": "bpb",
        "bpb": "loss",
        "patch": "bytes_per_unit",
    }


@dataclasses.dataclass(frozen=True, eq=False)
class Points:
    """Rows of runs. `values` holds fields by name, float64 [M] each; runs with the same `cell`
    differ by seed only.
    """

    path: str
    values: dict[str, np.ndarray]
    family: np.ndarray
    # FLOPs; runs at one budget have the same number here. NaN where there are no FLOPs.
    budget: np.ndarray
    cell: np.ndarray
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.cell)

    def __getitem__(self, field: str) -> np.ndarray:
        return self.values[field]

    def where(self, keep_M: Any) -> "Points":
        """The rows of a mask or an index."""
        values = {field: value[keep_M] for field, value in self.values.items()}
        cut = {
            "family": self.family[keep_M],
            "budget": self.budget[keep_M],
            "cell": self.cell[keep_M],
        }
        return dataclasses.replace(self, values=values, **cut)

    def families(self) -> list[str]:
        """Names of families, in the order of the table."""
        return list(dict.fromkeys(self.family.tolist()))

    def of(self, family: str) -> "Points":
        """The rows of one family."""
        return self.where(self.family == family)

    def without_highest(self, count: int, field: str) -> "Points":
        """Without the `count` rows of highest loss, as arXiv 2404.10102 leaves out five of
        Chinchilla's.
        """
        if not count:
            return self
        if count >= len(self):
            raise ConfigError(f"{self.path}: cannot leave out {count} of {len(self)} rows")
        kept = self.where(np.sort(np.argsort(self[field], kind="stable")[:-count]))
        return dataclasses.replace(
            kept, notes=(*self.notes, f"left out: the {count} rows of highest {field}")
        )


def load(
    path: Path | str,
    fields: Sequence[str],
    *,
    optional: Iterable[str] = (),
    rename: Mapping[str, str] | None = None,
    convention: str = "exact",
    entropy_model: bool = False,
) -> Points:
    """Points with `fields` from a CSV, or a JSON list of records. Raises ConfigError: file, line,
    field, mend.

    `optional` fields are left out where the table has none, and with a note where their values are
    no good. `rename` says {field: column} where the table has names of its own. `entropy_model`
    adds the FLOPs of scoring the bytes by the entropy model, where the table has them.
    """
    rename, records = dict(rename or {}), _records(path)
    columns, notes, optional = list(records[0][1]), [], set(optional) - set(fields)
    for field, column in rename.items():
        if field not in (*FIELDS, "family", "budget"):
            raise ConfigError(
                f"columns: unknown field {field!r}: fields are {', '.join(FIELDS)}, family, budget"
            )
        if column not in columns:
            raise ConfigError(
                f"{path}: no column {column!r}, asked for as {field}; found: {', '.join(columns)}"
            )
    own = columns_of_report(convention)

    def column_of(field):
        for column in (rename.get(field), field, own.get(field)):
            if column in columns:
                return column
        return None

    def numbers(field, column):
        return np.array(
            [_number(path, line, field, column, record.get(column)) for line, record in records]
        )

    values = {}
    for field in FIELDS:
        column = column_of(field)
        if column is None or not (_always_read(field, fields) or field in optional):
            continue
        try:
            values[field] = numbers(field, column)
        except ConfigError as error:
            if _always_read(field, fields):
                raise
            notes.append(f"without {field}: {str(error).removeprefix(f'{path}: ')}")
    score = f"entropy_model_flops_{convention}"
    if entropy_model and "flops" in values:
        if score not in columns:
            raise ConfigError(f"{path}: no column {score!r}, asked for by entropy_model")
        extra = [
            _number(path, line, score, score, record.get(score), least=0)
            for line, record in records
        ]
        values["flops"] = values["flops"] + np.array(extra)
        notes.append(f"flops include {score}")
    _derive(values, {*fields, *optional}, notes)
    missing = [field for field in fields if field not in values]
    if missing:
        lacking = ", ".join(f"{field} ({FIELDS[field]})" for field in missing)
        raise ConfigError(
            f"{path}: no column for {lacking}; found: {', '.join(columns)}; name yours by "
            f"--columns={missing[0]}=COLUMN"
        )
    family_column = column_of("family")
    family = np.array(
        [str(record[family_column]) if family_column else "all" for _, record in records]
    )
    if "budget" in columns or "budget" in rename:
        budget = numbers("budget", rename.get("budget", "budget"))
    else:
        budget = (
            grouped(values["flops"], SAME_BUDGET)
            if "flops" in values
            else np.full(len(records), np.nan)
        )
    return Points(
        str(path),
        values,
        family,
        budget,
        _cells(records, columns, family, budget, values),
        tuple(notes),
    )


def load_for_report(
    path: Path | str,
    optional: Iterable[str],
    *,
    rename: Mapping[str, str] | None = None,
    convention: str = "exact",
) -> Points:
    """Points with flops, bpb (`loss` is the same) and, of `optional`, what the table has. Raises
    ConfigError as `load`; without flops and bpb, or what they follow from, too.
    """
    table = load(
        path,
        ("flops", "bpb"),
        optional=set(optional) - {"loss"},
        rename=_loss_as_bpb(rename),
        convention=convention,
    )
    return dataclasses.replace(table, values=table.values | {"loss": table["bpb"]})


def with_scoring(
    path: Path | str,
    table: Points,
    *,
    rename: Mapping[str, str] | None = None,
    convention: str = "exact",
) -> Points | None:
    """`table` with the FLOPs of scoring the bytes by the entropy model added; None where that adds
    nothing.
    """
    names = _loss_as_bpb(rename)
    try:
        full = load(path, ("flops", "bpb"), rename=names, convention=convention, entropy_model=True)
    except ConfigError:
        return None
    return full if (full["flops"] > table["flops"]).any() else None


def measure(path: Path | str, rename: Mapping[str, str] | None = None) -> str:
    """What the table's losses are: "bits per byte" where a column is, or is named for, bpb; else
    "loss".
    """
    named = {*(rename or {}), *_records(path)[0][1]}
    return "bits per byte" if "bpb" in named else "loss"


def best_sizes(points: Points) -> list[tuple[float, np.ndarray]]:
    """[(budget, mask_M)]: the rows of the size with the lowest mean BPB over seeds, at each budget
    of one family.
    """
    best = []
    for budget in np.unique(points.budget):
        cells = np.unique(points.cell[points.budget == budget])
        means = [points["bpb"][points.cell == cell].mean() for cell in cells]
        best.append((float(budget), points.cell == cells[np.argmin(means)]))
    return best


def _loss_as_bpb(rename: Mapping[str, str] | None) -> dict[str, str]:
    """A column named for `loss` serves as bpb too."""
    names = dict(rename or {})
    return names if "loss" not in names else {"bpb": names.pop("loss")} | names


def _always_read(field: str, fields: Sequence[str]) -> bool:
    # What a missing field may be derived from is read as well, and FLOPs tell the budgets apart.
    return field in fields or field in ("flops", "params", "data")


def _derive(values, fields, notes):
    have = values.keys()
    if "data" not in have and {"flops", "params"} <= have and "data" in fields:
        patch = values.get("patch", 1.0)
        values["data"] = values["flops"] * patch / (6 * values["params"])
        notes.append(
            "data = flops / (6 params)" + (" x patch, in bytes" if "patch" in have else "")
        )
    if "flops" not in have and {"data", "params"} <= have:
        values["flops"] = 6 * values["params"] * values["data"] / values.get("patch", 1.0)
        notes.append("flops = 6 params x data" + (" / patch" if "patch" in have else ""))


def _records(path):
    """[(line, {column: text or number})]."""
    try:
        text = storage.at(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or 'no such file'}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8") from None
    if str(path).endswith(".json"):
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}: line {error.lineno}: not JSON: {error.msg}") from None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ConfigError(f"{path}: must be a list of records, one for each run")
        records = [(i + 1, row) for i, row in enumerate(rows)]
    else:
        reader = csv.DictReader(text.splitlines())
        records = [(reader.line_num, row) for row in reader]
    if not records:
        raise ConfigError(
            f"{path}: no rows; the first line names the columns, each line below is a run"
        )
    return records


def _number(path, line, field, column, value, least=None):
    where = (
        f"{path}: line {line}, {column}"
        + (f" (as {field})" if column != field else "")
        + f" = {value!r}"
    )
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{where}: must be a number") from None
    if not math.isfinite(number) or (number < least if least is not None else number <= 0):
        kind = "positive" if least is None else f"at least {least}"
        raise ConfigError(f"{where}: must be finite and {kind}; drop or mend the row")
    return number


def grouped(values_M: np.ndarray, factor: float) -> np.ndarray:
    """Each value replaced by its group's geometric mean: a group ends where a value is `factor`
    above its smallest.
    """
    group_M = np.empty(len(values_M))
    order, first = np.argsort(values_M), 0
    for i in range(1, len(order) + 1):
        if i == len(order) or values_M[order[i]] > factor * values_M[order[first]]:
            own_G = values_M[order[first:i]]
            group_M[order[first:i]] = (
                own_G[0] if own_G[0] == own_G[-1] else np.exp(np.log(own_G).mean())
            )
            first = i
    return group_M


def _cells(records, columns, family_M, budget_M, values):
    """A number for each run; seeds of one run share it."""
    if {"size", "seed"} <= set(columns):
        keys = [
            (family, record["size"], b)
            for family, (_, record), b in zip(family_M, records, budget_M, strict=True)
        ]
    else:
        inputs = [
            values[field] for field in ("params", "data", "flops", "patch") if field in values
        ]
        keys = list(zip(family_M.tolist(), *(value.tolist() for value in inputs), strict=True))
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys])
