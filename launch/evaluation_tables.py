"""Evaluations as tables on a terminal."""

from rich.console import Console
from rich.table import Table

from blt_jax.eval import texts
from blt_jax.study import evaluation_results

MOST = 80  # lines of a table


def rows(found):
    """All numbers of evaluations {name: evaluation}, by table."""
    made = {label: evaluation_results.by_label(found, label) for label in texts.LABELS}
    made |= {
        "noise": evaluation_results.under_noise(found),
        "thresholds": evaluation_results.along_thresholds(found),
    }
    made["tasks"] = {", ".join(task): of for task, of in evaluation_results.on_tasks(found).items()}
    return {name: one for name, one in made.items() if one}


def told(estimate, form="{:.4f}"):
    """'1.2345 (1.2 to 1.3)'."""
    if estimate is None:
        return "-"
    value = form.format(estimate.value)
    return (
        value
        if estimate.low is None
        else f"{value} ({form.format(estimate.low)} to {form.format(estimate.high)})"
    )


def show(found):
    """Prints the tables of {name: evaluation}."""
    made, base = rows(found), evaluation_results.baseline(found)
    console = Console(width=None if Console().is_terminal else 200)
    others = [name for name in found if name != base]
    for label in texts.LABELS:
        some = made.get(label, [])
        if len(some) > 1 or label == "source" and some:
            console.print(_texts(label, some, found, others, base))
    if "noise" in made:
        console.print(_noise(made["noise"], found, others, base))
    for name, turned in made.get("thresholds", {}).items():
        table = _table(
            f"{found[name]['label']}: patch threshold",
            "threshold",
            "bytes per patch",
            "FLOPs/byte",
            "BPB",
            "less trained",
        )
        for one in turned:
            flops = f"{one.flops['total']:.4g}"
            mark = " *" if one.threshold == found[name]["threshold"] else ""
            table.add_row(
                f"{one.threshold:.4f}{mark}",
                f"{one.bytes_per_unit:.3f}",
                flops,
                told(one.bpb),
                told(one.gap, "{:+.4f}"),
            )
        table.caption = "FLOPs: forward, exact, entropy model included. * as trained."
        console.print(table)
    if "tasks" in made:
        console.print(_tasks(made["tasks"], found, others, base))
    console.print("In brackets: 90% intervals over documents drawn anew, the same for every model.")


def _table(title, *heads):
    table = Table(title=title, title_justify="left", caption_justify="left")
    for i, head in enumerate(heads):
        table.add_column(head, justify="right" if i else "left", overflow="fold")
    return table


def _texts(label, some, found, others, base):
    heads = [label, "documents", "bytes"]
    for name in found:
        heads += [f"{found[name]['label']}: BPB", f"bytes/{found[name]['unit']}", "bits/line"]
    heads += [f"{found[name]['label']} less {found[base]['label']}" for name in others]
    table = _table(f"bits per byte by {label}", *heads)
    for value, documents, size, of in some[:MOST]:
        cells = [value, f"{documents:,}", f"{size:,}"]
        for name in found:
            cells += [
                told(of[name].bpb),
                f"{of[name].bytes_per_unit:.3f}",
                f"{of[name].bits_per_line.value:,.0f}",
            ]
        table.add_row(*cells, *(told(of[name].gap, "{:+.4f}") for name in others))
    if len(some) > MOST:
        table.caption = f"{len(some) - MOST} more in --json"
    return table


def _noise(made, found, others, base):
    shown = [name for name in found if name in made["clean"]]
    heads = ["noise"]
    for name in shown:
        heads += [f"{found[name]['label']}: bits/clean byte", "rise", "bits/noised byte"]
    heads += [f"{found[name]['label']} less {found[base]['label']}" for name in others]
    table = _table("bits per byte under noise", *heads)
    for noise, of in made.items():
        cells = [noise]
        for name in shown:
            one = of[name]
            cells += [
                told(one.bpb),
                "" if noise == "clean" else f"x {told(one.rise, '{:.3f}')}",
                f"{one.own.value:.4f}",
            ]
        table.add_row(*cells, *(told(of[name].gap, "{:+.4f}") for name in others))
    return table


def _tasks(made, found, others, base):
    heads = ["task", "documents", *(found[name]["label"] for name in found)]
    heads += [f"{found[name]['label']} less {found[base]['label']}" for name in others]
    table = _table("tasks: mean over documents", *heads)
    for task, of in made.items():
        count = max(one.documents for one in of.values())
        cells = [told(of[name].value if name in of else None, "{:.3f}") for name in found]
        gaps = [told(of[name].gap if name in of else None, "{:+.3f}") for name in others]
        table.add_row(task, f"{count:,}", *cells, *gaps)
    corpus = {
        task: told["corpus"]
        for one in found.values()
        for task, told in one.get("tasks", {}).items()
        if "corpus" in told
    }
    for task, metrics in corpus.items():
        for metric in metrics:
            values = [
                one.get("tasks", {}).get(task, {}).get("corpus", {}).get(metric)
                for one in found.values()
            ]
            table.add_row(
                f"{task}, {metric} of the corpus",
                "",
                *("-" if v is None else f"{v:.3f}" for v in values),
            )
    return table
