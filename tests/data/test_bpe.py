"""Byte-level BPE: no byte is ever lost, whatever the text or the tokenizer."""

import json
import os

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from blt_jax.config import ConfigError
from blt_jax.data import bpe

WORDS = [
    b"the quick brown fox jumps over the lazy dog\n",
    "naïve café 日本語 12345\r\n".encode(),
    b"\xff broken \xfe",
    b"a line.\n\n    indented\r\n\tand so on\n",
] * 20
AWKWARD = [
    b"",
    b"x",
    b"\x00",
    b"\xff",
    bytes(range(256)),
    b"\xed\xa0\x80 lone surrogate \xed\xbf\xbf",
    "日本\u00a0e\u0301\u212b ﬁ \r\n\r\n  \t".encode(),
    "日本語".encode()[:-1],
    b"<|begin_of_text|> <|end_of_text|></s><s>",
    b" leading and trailing ",
    b"a" * 300_000,
    os.urandom(20_000),
    ("line of words\n\n  indented\n" * 20_000).encode(),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    bpe.train(WORDS, 400, path)
    return path


@pytest.fixture(scope="module")
def tokenizer(path):
    return bpe.Bpe(path)


def changed(path, out, **changes):
    out.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return out


def test_training_is_deterministic(path, tokenizer, tmp_path):
    bpe.train(iter(WORDS), 400, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert bpe.Bpe(tmp_path / "again.json").fingerprint == tokenizer.fingerprint
    assert tokenizer.vocab <= 400 and (tokenizer.bos, tokenizer.eos) == (0, 1)
    assert len(tokenizer.encode(b" quick brown")) == 4  # merges were learned: BOS, two words, EOS


@pytest.mark.parametrize("text", AWKWARD, ids=range(len(AWKWARD)))
def test_no_byte_is_lost(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32 and tokenizer.decode(ids) == text
    assert (ids[0], ids[-1]) == (tokenizer.bos, tokenizer.eos)
    assert not {tokenizer.bos, tokenizer.eos} & set(ids[1:-1].tolist())
    assert tokenizer.token_bytes[ids].sum() == len(text)
    assert tokenizer.token_bytes.dtype == np.int32 and len(tokenizer.token_bytes) == tokenizer.vocab


RULES = {  # how the published tokenizers split, where they differ around newlines
    "llama3": bpe.SPLIT,
    "gpt2": r"'s|'t| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4o": bpe.SPLIT.replace(r"]+[\r\n]*", r"]+[\r\n/]*"),
}


@pytest.mark.parametrize("rule", RULES)
def test_cutting_long_text_changes_nothing(tmp_path, monkeypatch, rule):
    text = (
        "Words, 123 of them.  \nnext\n\nlast\n    indented\r\n\tand }\n// so\r\non\n" * 40
    ).encode()
    monkeypatch.setattr(bpe, "SPLIT", RULES[rule])
    bpe.train([text], 300, tmp_path / "t.json")  # its merges join what the rule leaves together
    tokenizer = bpe.Bpe(tmp_path / "t.json")
    want = tokenizer.encode(text)
    for size in range(100, 160):  # a cut at every place of the pattern
        monkeypatch.setattr(bpe, "CHUNK", size)
        assert len(bpe._lines(text.decode())) > 5
        assert np.array_equal(tokenizer.encode(text), want)


def test_same_as_the_library_on_plain_text(path, tokenizer):
    text = "The quick brown fox, naïve café 日本語 12345.\n\nIt's a dog's life"
    assert (
        tokenizer.encode(text.encode())[1:-1].tolist()
        == Tokenizer.from_file(str(path)).encode(text).ids
    )


def test_foreign_settings_that_change_text_are_put_aside(path, tokenizer, tmp_path):
    lower = json.loads(normalizers.Lowercase().__getstate__())
    prefix = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": True,
        "use_regex": True,
    }
    found = bpe.Bpe(changed(path, tmp_path / "a.json", normalizer=lower, pre_tokenizer=prefix))
    for text in AWKWARD[:10]:
        assert found.decode(found.encode(text)) == text


def test_names_of_specials(path, tmp_path):
    added = json.loads(path.read_text())["added_tokens"]
    one = [added[0] | {"content": "<|endoftext|>", "id": 500}]
    found = bpe.Bpe(changed(path, tmp_path / "a.json", added_tokens=one))
    assert (found.bos, found.eos, found.vocab) == (500, 500, 501) and found.token_bytes[500] == 0
    with pytest.raises(
        ConfigError, match=r"has no BOS token; known names are <\|begin_of_text\|>, <s>"
    ):
        bpe.Bpe(changed(path, tmp_path / "b.json", added_tokens=[]))
    with pytest.raises(ConfigError, match="has no EOS token"):
        bpe.Bpe(changed(path, tmp_path / "c.json", added_tokens=added[:1]))


def foreign(folder):
    """Tokenizers that are no byte-level BPE, with the reason that must be given."""
    letters = {c: i for i, c in enumerate("abc")}
    plain = Tokenizer(models.BPE(letters, []))
    plain.pre_tokenizer = pre_tokenizers.Metaspace()
    yield plain.to_str(), "no ByteLevel pre-tokenizer"
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    yield words.to_str(), "its model is 'WordLevel'"
    few = Tokenizer(models.BPE(letters, []))
    few.pre_tokenizer = pre_tokenizers.ByteLevel()
    yield few.to_str(), "253 of the 256 bytes have no token"
    suffix = Tokenizer(models.BPE(letters, [], end_of_word_suffix="</w>"))
    suffix.pre_tokenizer = pre_tokenizers.ByteLevel()
    yield suffix.to_str(), "end_of_word_suffix '</w>'"
    yield "{}", "its model is None"


def test_other_kinds_of_tokenizer_are_refused(path, tmp_path):
    for text, why in foreign(tmp_path):
        (tmp_path / "t.json").write_text(text)
        with pytest.raises(ConfigError, match=f"t.json: not a byte-level BPE .*{why}") as error:
            bpe.Bpe(tmp_path / "t.json")
        assert "\n" not in str(error.value)
    removing = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel(False)]
    )
    holder = Tokenizer(models.BPE())
    holder.pre_tokenizer = removing
    stage = json.loads(holder.to_str())["pre_tokenizer"]
    with pytest.raises(ConfigError, match="it makes .* bytes of"):
        bpe.Bpe(changed(path, tmp_path / "r.json", pre_tokenizer=stage))
    for name, text in (("none.json", None), ("bad.json", "{")):
        if text:
            (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=f"{name}: cannot be read"):
            bpe.Bpe(tmp_path / name)
