"""Evaluations as tables for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from blt_jax.eval import texts
from blt_jax.study import evaluation_results

MOST = 80  # lines of a table
NOTE = "In brackets: 90% intervals over documents drawn anew, the same for every model."

Evaluations = Mapping[str, dict[str, Any]]  # by the model's or the family's name


def rows(evaluations: Evaluations) -> dict[str, Any]:
    """All numbers of the tables, by table; none that would be empty."""
    by_table = {
        label: evaluation_results.by_label(evaluations, label) for label in texts.LABELS
    } | {
        "noise": evaluation_results.under_noise(evaluations),
        "thresholds": evaluation_results.along_thresholds(evaluations),
        "tasks": {
            ", ".join(task): scores
            for task, scores in evaluation_results.on_tasks(evaluations).items()
        },
    }
    return {name: numbers for name, numbers in by_table.items() if numbers}


def tables(evaluations: Evaluations) -> list[Table]:
    """One table per label, of noises, of each threshold sweep and of tasks, where there are any."""
    numbers, base = rows(evaluations), evaluation_results.baseline(evaluations)
    others = [name for name in evaluations if name != base]
    made = []
    for label in texts.LABELS:
        of_label = numbers.get(label, [])
        if len(of_label) > 1 or label == "source" and of_label:
            made.append(_texts(label, of_label, evaluations, others, base))
    if "noise" in numbers:
        made.append(_noise(numbers["noise"], evaluations, others, base))
    for name, sweep in numbers.get("thresholds", {}).items():
        made.append(_thresholds(evaluations[name], sweep))
    if "tasks" in numbers:
        made.append(_tasks(numbers["tasks"], evaluations, others, base))
    return made


def interval(estimate: Any, form: str = "{:.4f}") -> str:
    """'1.2345 (1.2 to 1.3)'; '-' for None."""
    if estimate is None:
        return "-"
    value = form.format(estimate.value)
    if estimate.low is None:
        return value
    return f"{value} ({form.format(estimate.low)} to {form.format(estimate.high)})"


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for i, head in enumerate(heads):
        table.add_column(head, justify="right" if i else "left", overflow="fold")
    return table


def _differences(evaluations: Evaluations, others: Sequence[str], base: str) -> list[str]:
    """Heads of the columns of differences to the first model of tokens."""
    return [f"{evaluations[name]['label']} less {evaluations[base]['label']}" for name in others]


def _texts(label, of_label, evaluations, others, base) -> Table:
    heads = [label, "documents", "bytes"]
    for evaluation in evaluations.values():
        heads += [f"{evaluation['label']}: BPB", f"bytes/{evaluation['unit']}", "bits/line"]
    heads += _differences(evaluations, others, base)
    table = _table(f"bits per byte by {label}", *heads)
    for value, documents, size, of in of_label[:MOST]:
        cells = [value, f"{documents:,}", f"{size:,}"]
        for name in evaluations:
            cells += [
                interval(of[name].bpb),
                f"{of[name].bytes_per_unit:.3f}",
                f"{of[name].bits_per_line.value:,.0f}",
            ]
        table.add_row(*cells, *(interval(of[name].gap, "{:+.4f}") for name in others))
    if len(of_label) > MOST:
        table.caption = f"{len(of_label) - MOST} more in --json"
    return table


def _noise(noised, evaluations, others, base) -> Table:
    shown = [name for name in evaluations if name in noised["clean"]]
    heads = ["noise"]
    for name in shown:
        label = evaluations[name]["label"]
        heads += [f"{label}: bits/clean byte", "rise", "bits/noised byte"]
    heads += _differences(evaluations, others, base)
    table = _table("bits per byte under noise", *heads)
    for noise, of in noised.items():
        cells = [noise]
        for name in shown:
            cells += [
                interval(of[name].bpb),
                "" if noise == "clean" else f"x {interval(of[name].rise, '{:.3f}')}",
                f"{of[name].own.value:.4f}",
            ]
        table.add_row(*cells, *(interval(of[name].gap, "{:+.4f}") for name in others))
    return table


def _thresholds(evaluation, sweep) -> Table:
    table = _table(
        f"{evaluation['label']}: patch threshold",
        "threshold",
        "bytes per patch",
        "FLOPs/byte",
        "BPB",
        "less trained",
    )
    for point in sweep:
        trained = " *" if point.threshold == evaluation["threshold"] else ""
        table.add_row(
            f"{point.threshold:.4f}{trained}",
            f"{point.bytes_per_unit:.3f}",
            f"{point.flops['total']:.4g}",
            interval(point.bpb),
            interval(point.gap, "{:+.4f}"),
        )
    table.caption = "FLOPs: forward, exact, entropy model included. * as trained."
    return table


def _tasks(scores, evaluations, others, base) -> Table:
    heads = ["task", "documents", *(each["label"] for each in evaluations.values())]
    heads += _differences(evaluations, others, base)
    table = _table("tasks: mean over documents", *heads)
    for task, of in scores.items():
        count = max(score.documents for score in of.values())
        cells = [interval(of[name].value if name in of else None, "{:.3f}") for name in evaluations]
        gaps = [interval(of[name].gap if name in of else None, "{:+.3f}") for name in others]
        table.add_row(task, f"{count:,}", *cells, *gaps)
    of_corpus = {
        task: measured["corpus"]
        for evaluation in evaluations.values()
        for task, measured in evaluation.get("tasks", {}).items()
        if "corpus" in measured
    }
    for task, metrics in of_corpus.items():
        for metric in metrics:
            values = [
                evaluation.get("tasks", {}).get(task, {}).get("corpus", {}).get(metric)
                for evaluation in evaluations.values()
            ]
            table.add_row(
                f"{task}, {metric} of the corpus",
                "",
                *("-" if value is None else f"{value:.3f}" for value in values),
            )
    return table
