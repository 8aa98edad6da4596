"""Bytes that a model writes as text for a person: what is certain of them, as they come."""

import codecs
from collections.abc import Sequence

COLOURS = (36, 33, 35, 32)  # ANSI foregrounds, one patch after the other
# Control characters as their pictures: a terminal would obey them.
PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
PICTURES |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


class ShownText:
    """What is no UTF-8 becomes U+FFFD. `colour`: each patch has its colour, and the characters that
    completed one are underlined; `terminal`: control characters are shown, not sent.
    """

    def __init__(self, colour: bool = False, terminal: bool = False) -> None:
        self.bytes = bytearray()
        self.closed: list[bool] = []  # whether each byte completed a patch
        self._colour, self._pictures = colour, colour or terminal
        self._patch, self._completes = 0, False
        self._ready: list[str] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, new: bytes, closed: Sequence[bool]) -> None:
        self.bytes += new
        self.closed += closed
        for byte, completes in zip(new, closed, strict=True):
            self._completes |= completes
            self._put(self._decoder.decode(bytes([byte])))
            self._patch += completes

    def take(self, final: bool = False) -> str:
        """What was not taken yet; `final`: also what was cut inside a character."""
        if final:
            self._put(self._decoder.decode(b"", final=True))
        ready, self._ready = "".join(self._ready), []
        return ready

    def _put(self, characters: str) -> None:
        if not characters:
            return
        if self._pictures:
            characters = characters.translate(PICTURES)
        if self._colour:
            colour = COLOURS[self._patch % len(COLOURS)]
            code = f"{colour}{';4' if self._completes else ''}"
            characters = f"\033[{code}m{characters}\033[0m"
        self._ready.append(characters)
        self._completes = False
