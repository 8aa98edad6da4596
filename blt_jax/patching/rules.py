"""Where patches start: one function of ids, entropies and a rule, in NumPy (docs/blt.md, section 2).

A start at position t means that id t begins a patch; ids 0 and 1 of a document always begin one.
`E[k]` is the entropy (nats) of the next-byte distribution after ids 0..k, so `E[t-1]` speaks about
id t. A rule looks only at ids and entropies before t: the starts of a prefix are a prefix of the
starts. Entropies are compared in float32, whatever they are stored as, and strictly.
"""

import numpy as np

from blt_jax.config import BYTE_OFFSET, DELIMITER, ConfigError
from blt_jax.patching import Patching


def starts(ids, entropies, patching: Patching, include_next=False):
    """Bool start flags of one document, [N], or [N+1] with the decision for the id that is not
    known yet.

    `ids`: int [N], N >= 1. `entropies`: float16 or float32 [N] nats, used (and then needed) only
    where `patching.needs_entropies`. Leading axes are kept: [B, N] gives each row by itself. Raises
    ConfigError if entropies are needed and missing, or of another shape.
    """
    ids = np.asarray(ids)
    decided = ids.shape[-1] + (1 if include_next else 0)
    if patching.needs_entropies:
        if entropies is None or np.shape(entropies) != ids.shape:
            got = "none" if entropies is None else f"shape {np.shape(entropies)}"
            raise ConfigError(
                f"patching rule {patching.rule!r} needs one entropy per id {ids.shape}, got {got}"
            )
        entropies = np.asarray(entropies, np.float32)
    flags = np.zeros((*ids.shape[:-1], decided), bool)
    flags[..., :2] = True
    if decided > 2:
        flags[..., 2:] = _RULES[patching.rule](ids, entropies, patching)[..., : decided - 2]
    if patching.max_length:
        flags |= _cut(flags, patching.max_length)
    return flags


def _cut(flags, most):
    """Where patches of more than `most` ids are cut: into most, most, ..., rest, from the left."""
    position = np.arange(flags.shape[-1])
    begin = np.maximum.accumulate(np.where(flags, position, 0), axis=-1)
    return (position - begin) % most == 0


# Each rule decides positions 2..N and returns [..., N-1] flags; the caller drops the last where it
# is not asked for.


def _entropy(ids, entropies, patching):
    return entropies[..., 1:] > np.float32(patching.threshold)


def _rise(entropies):
    """E[t-1] - E[t-2] for t = 3..N."""
    return entropies[..., 2:] - entropies[..., 1:-1]


def _relative(ids, entropies, patching):
    rises = _rise(entropies) > np.float32(patching.threshold)
    return np.concatenate([np.ones((*ids.shape[:-1], 1), bool), rises], axis=-1)


def _combined(ids, entropies, patching):
    high = entropies[..., 2:] > np.float32(patching.threshold)
    flags = high & (_rise(entropies) > np.float32(patching.threshold_add))
    # The published rule means to keep starts apart, but its guard blocks only the one after the
    # forced start at 2.
    flags[..., :1] = False
    return np.concatenate([np.ones((*ids.shape[:-1], 1), bool), flags], axis=-1)


def _space_like():
    """[256] bool: bytes that close a patch: neither ASCII letters and digits nor UTF-8 continuation
    bytes.
    """
    byte = np.arange(256)
    word = np.zeros(256, bool)
    for first, last in (("0", "9"), ("A", "Z"), ("a", "z")):
        word |= (byte >= ord(first)) & (byte <= ord(last))
    return ~word & ((byte < 0x80) | (byte >= 0xC0))


# By id; specials are space-like.
SPACE_LIKE = np.concatenate([np.ones(BYTE_OFFSET, bool), _space_like()])


def _space(ids, entropies, patching):
    like = SPACE_LIKE[ids]
    special = (
        ids[..., 1:] < BYTE_OFFSET
    )  # a special id always ends a patch, also after a space-like byte
    return like[..., 1:] & ~like[..., :-1] | special


def _strided(ids, entropies, patching):
    flags = np.arange(2, ids.shape[-1] + 1) % patching.stride == 0
    return np.broadcast_to(flags, (*ids.shape[:-1], flags.size))


def _byte(ids, entropies, patching):
    return np.ones((*ids.shape[:-1], ids.shape[-1] - 1), bool)


def _bpe(ids, entropies, patching):
    return ids[..., 1:] == DELIMITER


_RULES = {
    "entropy": _entropy,
    "relative": _relative,
    "combined": _combined,
    "space": _space,
    "strided": _strided,
    "byte": _byte,
    "bpe": _bpe,
}
