"""Makes evaluations: of a model, and of a study's families by their best runs. `launch.evaluate` is
their command.
"""

from blt_jax import facade, storage
from blt_jax.config import ConfigError
from blt_jax.data.store import Store
from blt_jax.eval import noise, tasks, texts
from blt_jax.flops import analytic
from blt_jax.record import build
from blt_jax.storage import write_json
from blt_jax.study import evaluation_results, results
from blt_jax.study import folder as study_folder
from blt_jax.study.config import Study
from launch import progress_bar

# bytes at least of a validation document that a study's evaluation reads, so that it reads many
PIECE = 2048
DIAL = "auto"
BROKEN = "".join(map(chr, range(0xDC80, 0xDD00)))  # what a cut leaves of a character, as surrogates


def facts(model, label):
    """What an evaluation says of its model."""
    told = {
        "format": evaluation_results.FORMAT,
        "label": label,
        "model": str(model.folder),
        "unit": model.config.unit,
    }
    told |= {
        "parameters": analytic.parameters(model.config)["non_embedding"],
        "context": model.context,
    }
    return told | {
        "threshold": model.patching.threshold
        if model.patching and model.patching.needs_entropies
        else None
    }


def of_texts(model, found, noises=(), thresholds=(), seed=0):
    """The parts "texts", "noise" and "dial" of an evaluation of `found`, a list of texts.Text."""
    data, made = [one.data for one in found], {}
    label = model.folder.name
    with progress_bar.Bytes(label) as tell:
        if noises:
            made["noise"] = texts.robustness(model, data, noises, seed, tell)
            columns = made["noise"]["clean"]
        else:
            columns = texts.measure(model, data, tell)
    made["texts"] = (
        columns
        | {"lines": [texts.lines(one) for one in data]}
        | {name: [one.labels[name] for one in found] for name in texts.LABELS}
    )
    made["flops_per_byte"] = texts.flops_per_byte(model, columns)
    if thresholds and made["flops_per_byte"]["entropy_model"]:
        if thresholds == DIAL:
            thresholds = texts.thresholds(model, data)
        with progress_bar.Bytes(f"{label}, thresholds") as tell:
            made["dial"] = texts.dial(model, data, thresholds, tell)
    return made


def of_tasks(model, asked, seed=0, **how):
    """The parts "tasks" and "places" of an evaluation. `asked`: see `eval.tasks.asked`; `how`: see
    `harness.run`.
    """
    from blt_jax.eval import harness

    with progress_bar.Bytes(f"{model.folder.name}, tasks") as tell:
        return tasks.averaged(harness.run(model, asked, seed=seed, tell=tell, **how))


# ---------------------------------------------------------------- a study


def validation(folder, most):
    """The beginnings of validation documents, of about equal length, `most` bytes in all, as
    texts.Text.
    """
    store, found, size = Store(folder / study_folder.STORE, "validation"), [], 0
    piece = min(most, max(PIECE, most // len(store)))
    for i in range(len(store)):
        text, source = store.document(i)
        text = text[:piece].decode("utf-8", "surrogateescape").rstrip(BROKEN)
        data = text.encode("utf-8", "surrogateescape")
        if data and size + len(data) <= most:
            labels = {"source": source, "lang": "", "script": texts.script_of(data)}
            found.append(texts.Text(data, labels))
            size += len(data)
    if not found:
        raise ConfigError(f"{folder / study_folder.STORE}: no validation text within noise_bytes = {most:,}")
    return found


def of_study(folder, seed=0, asked=None, **how):
    """Makes STUDY/evaluations/FAMILY.json where it is not there, or of another run or text; adds
    `asked` tasks.

    Raises ConfigError for a study without runs, or whose config leaves nothing to read.
    """
    folder = storage.at(folder)
    plan, points, _ = results.load(folder)
    most = build(Study, results.read_json(folder / study_folder.STUDY)["study"]).noise_bytes
    if not most:
        raise ConfigError(
            f"{folder}: its config says noise_bytes = 0, which leaves nothing to read"
        )
    missing = evaluation_results.missing(folder, points, most, seed)
    found = validation(folder, most) if missing else ()
    for family, (point, wanted) in evaluation_results.wanted(points, most, seed).items():
        if family not in missing and not asked:
            continue
        model, path = (
            facade.load(point.folder),
            folder / evaluation_results.FOLDER / f"{family}.json",
        )
        if family in missing:
            told = facts(model, plan["facts"][family]["label"]) | {
                "family": family,
                "asked": wanted,
            }
            told |= of_texts(model, found, list(noise.NOISES), DIAL, seed)
        else:
            told = evaluation_results.load(path)
        if asked:
            made = of_tasks(model, asked, seed, **how)
            told |= {part: told.get(part, {}) | made[part] for part in made}
        storage.make_folder(path.parent)
        write_json(path, told)
