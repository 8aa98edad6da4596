"""Work cut into parts that any process may make, in any order, as often as it likes, lock-free.

What a part holds depends on the corpus alone, never on who makes it or on how many share the work.
Its files come into being whole (`storage.replacing`) and its record comes last: a process that is
killed loses the part that it was at, and two that make the same part write the same bytes.
"""

import dataclasses
import json
from collections.abc import Collection
from typing import Any

import numpy as np

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.storage import PathLike


@dataclasses.dataclass(frozen=True)
class Piece:
    """Piece `number` (from 0) of the `of` pieces that share a stage's parts.

    Raises ConfigError where there is no such piece.
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

    def share(self, parts: int) -> range:
        """The numbers of the parts, of `parts` in all, that this piece makes."""
        return range(parts * self.number // self.of, parts * (self.number + 1) // self.of)

    def need(self, missing: Collection[int], parts: int, folder: PathLike, stage: str) -> None:
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
    """What is known of the finished parts in `folder`: facts (JSON) and arrays.

    `made_from`: JSON that tells the corpus, or the model, that they were made from.
    """

    def __init__(self, folder: PathLike, made_from: Any):
        self.folder, self._made_from = storage.at(folder), made_from

    def facts(self, name: str | int) -> dict[str, Any] | None:
        """The facts of a part, None where it is not finished or was made from something else."""
        try:
            record = json.loads((self.folder / f"{name}.json").read_text())
        except FileNotFoundError:
            return None
        return record["facts"] if record["mark"] == self._made_from else None

    def arrays(self, name: str | int) -> Any:
        """The arrays of a finished part by name, as numpy.load gives them."""
        return np.load(storage.local(self.folder / f"{name}.npz"), allow_pickle=False)

    def save(self, name: str | int, facts: dict[str, Any], **arrays: np.ndarray) -> None:
        """Makes the part count as finished."""
        if arrays:
            path = self.folder / f"{name}.npz"
            with storage.replacing(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, **arrays)  # type: ignore  # NumPy takes any name
        record = {"mark": self._made_from, "facts": facts}
        storage.write_json(self.folder / f"{name}.json", record)
