"""Rows with two budgets, L positions and P patches: which spans of which documents fill both.

Rows of dense text (short patches) would run out of patches, rows of sparse text out of bytes. So
the packer holds a pool of open documents and ends a span early where continuing with a document of
the opposite density makes both budgets come out. Documents are taken oldest first, and none waits
longer than the pool is deep.
"""

import bisect
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

POOL = 256  # documents that are open for packing
Span = tuple[int, int, int, int]  # document, begin, end, patches


class Open:
    """A document that is being packed. `counts` int32 [N + 1]: its starts before each position."""

    def __init__(self, number: int, counts: np.ndarray):
        self.number, self.at, self.left = number, 0, len(counts) - 1
        self._counts = counts.data  # a view gives Python numbers, and fast
        self._all = int(counts[-1])
        self.density = self._all / self.left  # patches per position of what is left

    def cost(self, n: int) -> int:
        """Patches of its next n positions as a span: the first two always start one."""
        if n < 2:
            return n
        return 2 + self._counts[self.at + n] - self._counts[self.at + 2]

    def take(self, n: int) -> Span:
        """The next n positions as a span."""
        span = (self.number, self.at, self.at + n, self.cost(n))
        self.at += n
        self.left -= n
        self.density = (self._all - self._counts[self.at]) / self.left if self.left else 0.0
        return span

    def most(self, n: int, slots: int) -> int:
        """The longest span of up to n positions that costs at most `slots`."""
        if self.cost(n) <= slots:
            return n
        return bisect.bisect_right(range(n + 1), slots, key=self.cost) - 1


class _Pool:
    """Open documents by age and by density, filled up from `documents`."""

    def __init__(self, documents, depth):
        self._documents, self._born = documents, itertools.count()
        self._by_age, self._by_density = {}, []  # {birth: document}, [(density, birth)]
        self._fill(depth)

    def _fill(self, room):
        for document in itertools.islice(self._documents, room):
            birth = next(self._born)
            self._by_age[birth] = document
            bisect.insort(self._by_density, (document.density, birth))

    def __len__(self):
        return len(self._by_age)

    def oldest(self):
        """(birth, document)."""
        return next(iter(self._by_age.items()))

    def extreme(self, last, but):
        """(birth, document) of the densest (`last` -1) or sparsest (0), leaving out the one born
        `but`.
        """
        birth = self._by_density[last][1]
        if birth == but:
            birth = self._by_density[-2 if last else 1][1]
        return birth, self._by_age[birth]

    def take(self, birth, n):
        """The next n positions of a document as a span."""
        document = self._by_age[birth]
        del self._by_density[bisect.bisect_left(self._by_density, (document.density, birth))]
        span = document.take(n)
        if document.left:
            bisect.insort(self._by_density, (document.density, birth))
        else:
            del self._by_age[birth]
            self._fill(1)
        return span


def rows(
    documents: Iterable[Open], positions: int, patches: int, depth: int = POOL
) -> Iterator[list[Span]]:
    """Yields rows, lists of spans, of at most `positions` and `patches`.

    `documents`: in the order of reading.
    """
    pool = _Pool(iter(documents), depth)
    crumb = max(positions // 512, 1)  # not worth another span
    while len(pool):
        row: list[Span] = []
        room, slots = positions, patches
        while len(pool) and slots >= 2 and (room > crumb or not row):
            for birth, n in _next_spans(pool, room, slots, slack=patches // 400):
                row.append(pool.take(birth, n))
                room -= n
                slots -= row[-1][3]
        yield row


def _next_spans(pool, room, slots, slack):
    """[(birth of a document, positions)]: what to add to a row that has `room` positions and
    `slots` patches left.

    The oldest document goes first, whole if the others of the pool can still use up the rest of
    both budgets. Otherwise it is cut, and a document of the opposite density fills the row up.
    """
    first, main = pool.oldest()
    n = min(room, main.left)
    if len(pool) == 1:
        return [(first, main.most(n, slots))]
    cost = main.cost(n)
    room_after, slots_after = room - n, slots - cost
    (_, sparsest), (_, densest) = ends = [pool.extreme(last, but=first) for last in (0, -1)]
    if slots_after >= 0:
        if n == room and slots_after <= slack:
            return [(first, n)]
        if (
            n < room
            and sparsest.density * room_after <= slots_after <= densest.density * room_after
        ):
            return [(first, n)]

    dense = cost * room > slots * n
    second, filler = ends[0] if dense else ends[1]
    if (filler.density * room >= slots) == dense:  # nothing in the pool can make up for it
        return [(first, main.most(n, slots))]
    both = lambda x: main.cost(x) + filler.cost(min(room - x, filler.left))
    least = max(room - filler.left, 0)  # of main, with all of the filler
    if least >= n or (both(least) > slots if dense else both(least) <= slots):
        return [(second, filler.most(min(room, filler.left), slots))]
    if not dense and both(n) > slots:
        return [(first, n)]  # all of main is too short for this filler: another will follow
    # `both` grows with x where main is the dense one, and falls where it is the sparse one.
    between = range(least + 1, n + 1 if dense else n)
    if dense:
        x = least + bisect.bisect_right(between, slots, key=both)
    else:
        x = least + 1 + bisect.bisect_left(between, -slots, key=lambda x: -both(x))
    return [
        (birth, size) for birth, size in ((first, x), (second, min(room - x, filler.left))) if size
    ]
