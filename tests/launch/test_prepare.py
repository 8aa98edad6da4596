"""A study with several tokenizers: each family of token models has its own, on the same rows of text."""

import dataclasses
import json
from pathlib import Path

from blt_jax.config import Data, EntropyModel, Family, Lm, Size, Stack, Study, Tokenizer
from blt_jax.scaling import grid
from launch import prepare

ROOT = Path(__file__).resolve().parents[2]
STACK = Stack(1, 16, 2)


def tokens(vocab, tokenizer=None):
    return Family({"s": Size(Lm(STACK, vocab=vocab, unit="token"), 1e-2)}, tokenizer=tokenizer)


def test_families_have_tokenizers_of_their_own(tmp_path):
    texts = [path.read_text() for path in sorted((ROOT / "blt_jax").rglob("*.py"))]  # real text, and always there
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts if text))
    study = Study(
        name="tokenizers",
        families={"shared": tokens(300), "again": tokens(300), "own": tokens(420, Tokenizer(vocab=420))},
        budgets=(1e9,),
        entropy_model=EntropyModel(Size(Lm(STACK), 1e-2)),
        data=Data(input=str(tmp_path / "text.jsonl"), row_bytes=256),
        tokenizer=Tokenizer(vocab=300),
    )
    stores, _ = prepare.store(study.data, tmp_path / "store")
    made, told = prepare.tokenizers(study, stores, tmp_path)
    assert made["shared"] is made["again"] and told is None
    assert (made["own"].vocab, made["shared"].vocab) == (420, 300)
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("tokenizer.json"))
    assert files == ["tokenizer/own/tokenizer.json", "tokenizer/tokenizer.json"]

    facts = prepare.facts(study, stores, tmp_path / "store", made)
    assert facts["own"].bytes_per_unit > facts["shared"].bytes_per_unit == facts["again"].bytes_per_unit
    paths = {one.run.family: one.run.tokenizer for one in grid.plan(study, facts)}
    assert paths["own"] == "../../tokenizer/own/tokenizer.json" and paths["shared"] == paths["again"]

    one = dataclasses.replace(study, families={"shared": study.families["shared"]})
    assert prepare.tokenizers(one, stores, tmp_path)[1]["vocab"] == 300
