"""The text of a row that is generated id by id, cut at stop strings and at a number of bytes."""

from collections.abc import Callable


class Text:
    """What a row has said, up to its end: a stop string, or so many bytes."""

    def __init__(self, decode: Callable[[list[int]], bytes], stops: list[bytes], most: int):
        self._decode, self._stops, self._most = decode, stops, most
        self._held = max(map(len, stops), default=1) - 1  # bytes that may begin a stop
        self._bytes, self._sent = bytearray(), 0
        self._closed: list[bool] = []
        self._lengths: list[int] = []  # bytes of each id since the last `take`

    def add(self, id: int) -> bool:
        """Adds what an id stands for; whether the text ends there."""
        new, before = self._decode([id]), len(self._bytes)
        self._bytes += new
        places = [self._bytes.find(stop, max(0, before - self._held)) for stop in self._stops]
        stops = [at for at in places if at >= 0]
        end = min([*stops, self._most])
        ended = bool(stops) or len(self._bytes) >= self._most
        del self._bytes[end:]
        self._lengths.append(len(new))
        return ended

    def take(self, closed: list[bool], held: int | None = None) -> tuple[bytes, list[bool]]:
        """(bytes, flags) that are certain and were not taken before. `closed`: flags of the ids
        added since.
        """
        for flag, length in zip(closed, self._lengths, strict=True):
            self._closed += [False] * (length - 1) + [flag] * (length > 0)
        self._lengths = []
        begin = self._sent
        self._sent = max(begin, len(self._bytes) - (self._held if held is None else held))
        return bytes(self._bytes[begin : self._sent]), self._closed[begin : self._sent]
