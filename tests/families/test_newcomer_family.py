"""A family is one file and one line: a toy is planned, trained, reported, evaluated and asked to
write by the real commands, in a copy of the checkout in which no other file changed.
"""

import json

import pytest

from tests import newcomer

TOY = '''"""A toy: the next byte by the byte before it, an embedding and a head."""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn

from blt_jax.config import BYTE_VOCAB
from blt_jax.families import Model, Prompted
from blt_jax.families.head import logits
from blt_jax.nn.block import untied_head
from blt_jax.nn.compute import Compute
from blt_jax.nn.embedding import read, table


class ToyModel(nn.Module):
    width: int
    compute: Compute

    @nn.compact
    def __call__(self, batch, head=True):
        embedding = table(self, BYTE_VOCAB, self.width)
        x_BxLxD = read(embedding, batch["ids_BxL"][None], self.compute)
        made = untied_head(BYTE_VOCAB, self.compute.dtype, name="head")
        return made(x_BxLxD) if head else x_BxLxD


@dataclasses.dataclass(frozen=True)
class Toy(Model):
    width: int
    vocab: int = BYTE_VOCAB
    tied: bool = False
    init_factor: str = "disabled"
    kind: str = "toy"

    @property
    def head_width(self):
        return self.width

    def describe(self):
        return "a toy"

    def parameters(self):
        counts = dict.fromkeys(("hash_tables", "encoder", "pooling", "latent", "decoder"), 0)
        return counts | {"embedding": self.vocab * self.width, "head": self.vocab * self.width}

    def module(self, compute):
        return ToyModel(self.width, compute)

    def prompt(self, params, rows, starts, plan, room):
        last_B = jnp.array([row[-1] for row in rows])
        return Prompted(self._next(params, plan.compute, last_B), jnp.int32(0))

    def step(self, params, compute, state, ids_B, starts_B, closes):
        return self._next(params, compute, ids_B), state + 1, jnp.zeros(ids_B.shape, bool)

    def _next(self, params, compute, ids_B):
        x_Bx1xD = read(params["embedding"], ids_B[None, :, None], compute)
        return logits(params, x_Bx1xD, self, compute)[:, 0]
'''

CONFIG = """
from blt_jax.families.toy import Toy
from blt_jax.study.config import Family, Size
from experiments import quickstart
from experiments.base import of

def get_config(_=""):
    config = quickstart.get_config()
    config.name = "newcomer"
    config.budgets = (2e9,)
    bpe = config.families["bpe"]
    bpe.sizes = {"small": bpe.sizes["small"]}
    size = of(Size, model=of(Toy, width=64), learning_rate=1e-2)
    config.families = {"toy": of(Family, label="Toy of a test", sizes={"small": size}), "bpe": bpe}
    config.data.update(input=INPUT, max_bytes=60_000, validation_max_bytes=8_000, row_bytes=256)
    config.noise_bytes = 1_000
    config.train.log_every = 5
    return config
"""


@pytest.mark.slow
def test_a_family_is_one_file_and_one_line(tmp_path):
    checkout = newcomer.checkout(
        tmp_path / "checkout",
        "blt_jax/families/toy.py",
        TOY,
        "blt_jax/families/__init__.py",
        '"blt": "blt_jax',
        '    "toy": "blt_jax.families.toy:Toy",',
    )
    text = tmp_path / "text.jsonl"
    sources = sorted((checkout / "blt_jax").rglob("*.py"))
    records = [{"text": path.read_text(), "source": "code"} for path in sources]
    text.write_text("\n".join(json.dumps(record) for record in records if record["text"].strip()))
    config, study = tmp_path / "tiny.py", tmp_path / "study"
    config.write_text(CONFIG.replace("INPUT", repr(str(text))))

    plan = newcomer.run(checkout, "plan", f"--config={config}")
    assert "toy-" in plan, plan
    newcomer.run(checkout, "sweep", f"--config={config}", f"--workdir={study}")
    results = {
        path.parent.name: json.loads(path.read_text()) for path in study.glob("runs/*/result.json")
    }
    name = next(name for name in results if name.startswith("toy-"))
    assert len(results) == 2 and 1 < results[name]["validation"]["bpb"] < 7.5
    cost = json.loads((study / "runs" / name / "cost.json").read_text())
    assert results[name]["train_flops"]["exact"] / results[name]["text_bytes"] == pytest.approx(
        3 * 2 * 64 * 260
    ), cost
    assert "Toy of a test" in (study / "report" / "index.html").read_text()

    numbers = tmp_path / "numbers.json"
    newcomer.run(
        checkout,
        "evaluate",
        f"--model={study / 'runs' / name}",
        f"--input={text}",
        "--max_bytes=20000",
        f"--json={numbers}",
    )
    assert name in numbers.read_text()
    written = newcomer.run(
        checkout,
        "generate",
        f"--model={study / 'runs' / name}",
        "--prompt=import ",
        "--max_new_bytes=20",
    )
    assert len(written.removesuffix("\n")) == 20, written  # mostly spaces
