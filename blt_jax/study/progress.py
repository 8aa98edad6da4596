"""How a study's stages report what they do: notes, and bytes done of all. The library prints
nothing; commands draw (`launch/progress_bar.py`).
"""

import functools
from collections.abc import Callable


class Progress:
    """Silent. A command's subclass shows what it is given."""

    def note(self, text: str) -> None:
        """One line about what was made, or why it is made again."""

    def bytes(self, what: str, done: int, of: int) -> None:
        """`done` of `of` bytes of the task `what`; `of` is 0 at its start, where it is unknown."""

    def task(self, what: str) -> Callable[[int, int], None]:
        """Starts a task; the result takes (done, of)."""
        self.bytes(what, 0, 0)
        return functools.partial(self.bytes, what)


SILENT = Progress()
