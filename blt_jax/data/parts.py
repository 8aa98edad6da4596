"""Work cut into parts that any process may make, in any order and as often as it likes, without a
lock.

What a part holds depends on the corpus alone, never on who makes it or on how many share the work.
Its files come into being whole (`storage.replacing`) and its record comes last: a process that is
killed loses the part that it was at, and two that make the same part write the same bytes.
"""

import dataclasses
import json

import numpy as np

from blt_jax import storage
from blt_jax.config import ConfigError


@dataclasses.dataclass(frozen=True)
class Piece:
    """Piece `number` (from 0) of the `of` pieces that share a stage's parts. Raises ConfigError for
    no such piece.
    """

    number: int = 0
    of: int = 1

    def __post_init__(self):
        if self.of < 1:
            raise ConfigError(f"pieces = {self.of}: must be at least 1")
        if not 0 <= self.number < self.of:
            raise ConfigError(
                f"piece = {self.number}: must be 0 to {self.of - 1} (pieces = {self.of})"
            )

    def share(self, parts):
        """The numbers of the parts, of `parts` in all, that this piece makes."""
        return range(parts * self.number // self.of, parts * (self.number + 1) // self.of)

    def need(self, missing, parts, folder, stage):
        """Raises ConfigError if parts are `missing`, with the pieces that make them."""
        if missing:
            gone = set(missing)
            makers = [n for n in range(self.of) if gone & set(Piece(n, self.of).share(parts))]
            named = ", ".join(map(str, makers[:8])) + (", ..." if len(makers) > 8 else "")
            raise ConfigError(
                f"{folder}: {len(gone)} of {parts} parts of stage {stage!r} are missing: "
                f"run that stage for piece {named} of {self.of}"
            )


WHOLE = Piece()


class Records:
    """What is known of the finished parts in `folder`: facts (JSON) and arrays. `mark`: what they
    were made from.
    """

    def __init__(self, folder, mark):
        self.folder, self._mark = storage.at(folder), mark

    def facts(self, name):
        """The facts of a part, None where it is not finished or was made from something else."""
        try:
            found = json.loads((self.folder / f"{name}.json").read_text())
        except FileNotFoundError:
            return None
        return found["facts"] if found["mark"] == self._mark else None

    def arrays(self, name):
        return np.load(storage.local(self.folder / f"{name}.npz"), allow_pickle=False)

    def save(self, name, facts, **arrays):
        """Makes the part count as finished."""
        if arrays:
            with (
                storage.replacing(self.folder / f"{name}.npz") as temporary,
                open(temporary, "wb") as file,
            ):
                np.savez(file, **arrays)
        storage.write_json(self.folder / f"{name}.json", {"mark": self._mark, "facts": facts})
