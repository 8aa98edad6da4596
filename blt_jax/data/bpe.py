"""Byte-level BPE that never loses a byte: training, loading, bytes <-> tokens.

Byte-level tokenizers spell bytes as 256 printable characters. The `tokenizers` library takes text,
not bytes, so a document is cut into runs of valid UTF-8, which it tokenises (its regex sees real
text there), and bytes that are not UTF-8, which become the single-byte tokens that every byte-level
vocabulary has. Text that looks like a special token is text. Nothing is normalised, and no space is
put in front.
"""

import hashlib
import json
import re
from collections.abc import Iterable

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.storage import PathLike, replacing
from blt_jax.storage_errors import writing

# How Llama 3 cuts text before merging: contractions, words, numbers of up to three digits,
# punctuation, space.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BOS_NAMES = ("<|begin_of_text|>", "<s>", "<bos>", "[BOS]", "<|startoftext|>", "<|endoftext|>")
EOS_NAMES = ("<|end_of_text|>", "</s>", "<eos>", "[EOS]", "<|endoftext|>")
CHUNK = 64 << 10  # characters that are tokenised at a time, from one start of a line to another


def _alphabet():
    """The 256 characters that spell bytes (GPT-2): printable Latin-1, else from U+0100 up."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]


ALPHABET = _alphabet()
BYTE_OF = {character: byte for byte, character in enumerate(ALPHABET)}


def train(texts: Iterable[bytes], vocab: int, path: PathLike) -> None:
    """Trains a tokenizer of `vocab` entries, or as many as the text gives, and writes
    tokenizer.json to `path`.

    `texts`: iterable of bytes, of which only valid UTF-8 counts. The same texts give the same file.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[BOS_NAMES[0], EOS_NAMES[0]],
        initial_alphabet=sorted(ALPHABET),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text.decode("utf-8", "ignore") for text in texts), trainer)
    file = storage.at(path)
    with writing(file):
        storage.make_folder(file.parent)
        with replacing(file) as temporary:
            temporary.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")


class Bpe:
    """A byte-level tokenizer.json.

    `vocab`: number of ids; `bos`, `eos`; `token_bytes` int32 [vocab]: bytes that each token stands
    for, 0 for specials; `fingerprint` of the file. Raises ConfigError, in one line, for a file that
    is not a byte-level BPE, or has no BOS and EOS.
    """

    def __init__(self, path: PathLike):
        self.path = storage.at(path)
        try:
            raw = self.path.read_bytes()
            settings = json.loads(raw)
        except (OSError, ValueError) as error:
            raise ConfigError(f"tokenizer {path}: cannot be read: {error}") from None
        self.fingerprint = hashlib.blake2b(raw, digest_size=8).hexdigest()
        added = {token["content"]: token["id"] for token in settings.get("added_tokens") or []}
        self._tokenizer = self._bare(settings)
        vocab = self._tokenizer.get_vocab()
        missing = sum(character not in vocab for character in ALPHABET)
        if missing:
            self._refuse(f"{missing} of the 256 bytes have no token")
        self._byte_ids = np.array([vocab[character] for character in ALPHABET], np.int32)
        self.bos, self.eos = (self._special(added, what, names) for what, names in _SPECIALS)
        self.vocab = max(*vocab.values(), *added.values()) + 1

        self._bytes = [b""] * self.vocab
        specials = set(added.values())
        for token, number in vocab.items():
            if number not in specials and all(c in BYTE_OF for c in token):
                self._bytes[number] = bytes(BYTE_OF[c] for c in token)
        self.token_bytes = np.array([len(b) for b in self._bytes], np.int32)
        self.decode(self.encode(PROBE))

    def _refuse(self, why):
        raise ConfigError(
            f"tokenizer {self.path}: not a byte-level BPE ({why}); give one, or leave "
            "tokenizer.path empty"
        )

    def _bare(self, settings):
        """The model and its splitting, without what changes text or looks for special tokens."""
        model = settings.get("model") or {}
        if model.get("type", "BPE") != "BPE" or "merges" not in model:
            self._refuse(f"its model is {model.get('type')!r}")
        for field in ("continuing_subword_prefix", "end_of_word_suffix"):
            if model.get(field):
                self._refuse(f"it has {field} {model[field]!r}")
        stages = settings.get("pre_tokenizer") or {}
        stages = stages.get("pretokenizers", [stages])
        if not any(stage.get("type") == "ByteLevel" for stage in stages):
            self._refuse("it has no ByteLevel pre-tokenizer")
        stages = [
            s | {"add_prefix_space": False} if s.get("type") == "ByteLevel" else s for s in stages
        ]
        bare = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": stages},
            "post_processor": None,
            "decoder": None,
            "model": model | {"dropout": None},
        }
        try:
            return Tokenizer.from_str(json.dumps(bare))
        except Exception as error:  # the library raises plain Exception
            self._refuse(" ".join(str(error).split()))

    def _special(self, added, what, names):
        for name in names:
            if name in added:
                return added[name]
        raise ConfigError(
            f"tokenizer {self.path}: has no {what} token; known names are {', '.join(names)}"
        )

    def encode(self, text: bytes) -> np.ndarray:
        """Token ids, int32: BOS, the tokens of `text`, EOS. Their token_bytes add up to len(text),
        always.
        """
        parts: list[np.ndarray | int] = []  # raw ids, or the number of a chunk
        chunks: list[str] = []
        for run in _RUNS.finditer(text.decode("utf-8", "surrogateescape")):
            if run[1]:
                pieces = _lines(run[1])
                parts += range(len(chunks), len(chunks) + len(pieces))
                chunks += pieces
            else:
                raw = run[0].encode("utf-8", "surrogateescape")
                parts.append(self._byte_ids[np.frombuffer(raw, np.uint8)])
        encoded = self._tokenizer.encode_batch_fast(chunks)
        ids_of = lambda part: encoded[part].ids if isinstance(part, int) else part
        ids = np.concatenate([[self.bos], *map(ids_of, parts), [self.eos]]).astype(np.int32)
        if self.token_bytes[ids].sum() != len(text):
            self._refuse(f"it makes {self.token_bytes[ids].sum()} bytes of {len(text)}")
        return ids

    def decode(self, ids: Iterable[int]) -> bytes:
        """The bytes of token ids; specials are dropped."""
        return b"".join(self._bytes[i] for i in ids)


_SPECIALS = (("BOS", BOS_NAMES), ("EOS", EOS_NAMES))
PROBE = bytes(range(256)) + "  Ünïcode \n\n 中文\t12345 <|end_of_text|> it's\r\n".encode()


# Bytes that are not UTF-8 are decoded to these surrogates, which valid text never holds.
_RUNS = re.compile("([^\udc80-\udcff]+)|[\udc80-\udcff]+")


# One newline between a visible character and a word splits the same whether or not the word
# follows. With more white space around it GPT-2's rule does not, before a slash GPT-4o's does not.
_CUT = re.compile(r"(?<=\S)\n(?=\w)")


def _lines(run):
    """Pieces of at least CHUNK characters, the last one aside, cut where it changes no token."""
    pieces, at = [], 0
    while newline := _CUT.search(run, at + CHUNK):
        pieces.append(run[at : newline.end()])
        at = newline.end()
    return [*pieces, run[at:]]
