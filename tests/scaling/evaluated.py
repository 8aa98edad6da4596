"""Made-up evaluations of models, as `launch.evaluate` writes them."""

import json

import numpy as np

from blt_jax.study import evaluation_results, results

DOCUMENTS = 40


def evaluation(unit, factor, noises=(), seed=0):
    """Of a model whose bits are `factor` times those of documents that differ widely, and half as
    many per noise.
    """
    random = np.random.default_rng(0)
    size_D = random.integers(50, 400, DOCUMENTS)
    own = np.random.default_rng([seed, 1]).normal(1, 0.01, DOCUMENTS)
    bits_D = size_D * random.uniform(1, 3, DOCUMENTS) * factor * own
    columns = lambda times, longer=1: {
        "bits": (bits_D * times).tolist(),
        "bytes": (size_D * longer).tolist(),
        "units": (size_D * longer // 4).tolist(),
    }
    label = {
        "source": ["a"] * DOCUMENTS,
        "lang": ["x", "y"] * (DOCUMENTS // 2),
        "script": ["latin"] * DOCUMENTS,
    }
    made = {
        "format": evaluation_results.FORMAT,
        "unit": unit,
        "label": unit,
        "threshold": 1.5 if unit == "patch" else None,
    }
    made |= {
        "texts": columns(1) | label | {"lines": [3] * DOCUMENTS},
        "flops_per_byte": {"total": 2e4, "model": 1e4, "entropy_model": 1e4},
    }
    characters = {"bytes": size_D.tolist(), "characters": (size_D // 2).tolist(), "seed": 0}
    made["noise"] = characters | {"clean": columns(1)} | {name: columns(1.5, 2) for name in noises}
    return made


def evaluate(folder, families, noise_bytes=1000):
    """Evaluations of a study's families; the first has a dial."""
    _, points, _ = results.load(folder)
    wanted = evaluation_results.missing(folder, points, noise_bytes)
    (folder / evaluation_results.FOLDER).mkdir()
    for i, family in enumerate(families):
        told = evaluation(
            "token" if family == "bpe" else "patch", 1 - 0.05 * (family != "bpe"), ["Drop"], i
        )
        told["asked"] = wanted[family][1]
        if not i:
            turn = {
                "bits": [90.0, 80.0],
                "bytes": [40, 50],
                "units": [9, 11],
                "flops_per_byte": told["flops_per_byte"],
            }
            told["dial"] = [{"threshold": at} | turn for at in (1.0, 1.5)]
        told["tasks"] = {"arc_easy Drop": {"documents": {"acc": [1.0, 0.0] * 10}}}
        (folder / evaluation_results.FOLDER / f"{family}.json").write_text(json.dumps(told))
