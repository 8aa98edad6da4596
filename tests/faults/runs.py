"""Tiny runs of every family, as the processes that users start."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from blt_jax.config import Optimizer, Stack, Train
from blt_jax.data import bpe, pack
from blt_jax.data.sources import Document
from blt_jax.data.store import Store
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.patching import Patching, row_starts
from blt_jax.record import to_dict
from blt_jax.runs.config import Run
from tests import QUICK
from tests.data.corpus import write_store

ROOT = Path(__file__).resolve().parents[2]
LOCAL = Stack(1, 16, 1, window=8, ffn=16)
LATENT = Stack(1, 32, 2, ffn=16)
PLAIN = dict(hash_sizes=(), encoder_cross="none", decoder_cross="none", slots=1)
SPACE, STRIDED = Patching(rule="space"), Patching(rule="strided", stride=4)
FAMILIES = {  # model, patching
    "bytes": (Lm(LOCAL), None),
    "tokens": (Lm(Stack(1, 16, 1, ffn=16), vocab=300, unit="token"), None),
    "blt": (Blt(LOCAL, LATENT, LOCAL, hash_sizes=(3,), hash_rows=64), SPACE),
    "spacebyte": (Blt(LOCAL, LATENT, LOCAL, **PLAIN), SPACE),
    "megabyte": (Blt(LOCAL, LATENT, LOCAL, hash_sizes=(3,), hash_rows=64), STRIDED),
}
STEPS, SAVES = 48, 6  # steps of a run, and between two checkpoints


def study(folder):
    """A store, row indexes and a config.json of each family under `folder`."""
    rng = np.random.default_rng(0)
    words = [b"def ", b"return ", b"import ", b"x", b" = ", b"\n", b"value", b"self."]
    texts = [b"".join(words[i] for i in rng.integers(0, len(words), 120)) for _ in range(12)]
    for split in ("train", "validation"):
        write_store([Document(text, "made up", "") for text in texts], folder / "store", split)
        store = Store(folder / "store", split)
        if split == "train":
            bpe.train(texts, 300, folder / "tokenizer.json")
        for name, (_, patching) in FAMILIES.items():
            how = dict(positions=64)
            if name == "tokens":
                how = dict(positions=32, tokenizer=bpe.Bpe(folder / "tokenizer.json"))
            elif patching:
                how |= dict(
                    patches=40,
                    starts_of=lambda i, s=store, p=patching: row_starts.starts(s.ids(i), None, p),
                )
            pack.build_index(store, folder / "store" / "rows" / name / split, **how)
    for name in FAMILIES:
        (folder / f"{name}.json").write_text(json.dumps(to_dict(run(name))))
    return folder


def run(name):
    """The Run of a family; its folder lies beside `store`."""
    model, patching = FAMILIES[name]
    return Run(
        name=name,
        family=name,
        size="only",
        model=model,
        store="../store",
        index=f"../store/rows/{name}/train",
        validation_index=f"../store/rows/{name}/validation",
        patching=patching,
        tokenizer="../tokenizer.json" if name == "tokens" else "",
        optimizer=Optimizer(learning_rate=0.01, warmup_steps=2),
        train=Train(steps=STEPS, rows=8, log_every=5, checkpoint_every=SAVES, eval_rows=8),
    )


def start(folder, family, name, *more, devices=1, log=""):
    """`launch.train` of a family in run folder `name`, output in `name`.log; a session of its own,
    as engines do.
    """
    command = [sys.executable, "-m", "launch.train", f"--workdir={folder / name}"]
    command += [
        f"--config={ROOT / 'experiments' / 'resolved.py'}:{folder / f'{family}.json'}",
        *more,
    ]
    flags = f"{QUICK} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    with open(folder / (log or f"{name}.log"), "ab") as out:
        return subprocess.Popen(
            command, stdout=out, stderr=out, env=environment, start_new_session=True
        )


def finish(folder, family, name, *more, **how):
    """Runs to the end; returns the exit code."""
    return start(folder, family, name, *more, **how).wait()


def newest(folder):
    """Step of a run's newest checkpoint, 0 where there is none."""
    saved = folder / "checkpoints"
    return max((int(p.name) for p in saved.glob("*") if p.name.isdigit()), default=0)


def outcome(folder):
    """All of a finished run that no clock measured: metrics lines, result, validation by
    document.
    """
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = [{k: v for k, v in line.items() if k not in ("seconds", "speed")} for line in lines]
    result = json.loads((folder / "result.json").read_text())
    del result["timing"]
    return metrics, result, json.loads((folder / "validation.json").read_text())


def largest_difference(a, b):
    """Relative, over the numbers of two nested values of the same form. Raises AssertionError for
    another form.
    """
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        return max((largest_difference(a[k], b[k]) for k in a), default=0.0)
    if isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        return max((largest_difference(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    if isinstance(a, float):
        return abs(a - b) / max(abs(a), abs(b), 1e-3)
    assert a == b
    return 0.0
