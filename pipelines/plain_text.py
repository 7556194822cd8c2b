"""Text that settings may hold, and the display of any value on one line of a terminal."""

from __future__ import annotations

import re
import reprlib
import unicodedata
from typing import Any

MAX_CHARACTERS = 4096
"""Maximum length of a setting's text, in characters: the longest path on Linux."""

JOINERS = "\u200c\u200d"
"""Zero-width characters that Persian and Indic words and many emoji need."""

_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f")
"""Pattern of the flags of regions, which are encoded with characters that are rejected elsewhere."""

_REFUSED = {
    "Cc": "control characters",
    "Cf": "invisible formatting characters",
    "Cs": "surrogates (it was not valid UTF-8)",
    "Zl": "line breaks",
    "Zp": "line breaks",
}
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 60


def why_refused(text: str) -> str:
    """The reason why a setting cannot hold this text; empty if it can.

    Accepted are all visible Unicode characters, spaces and `JOINERS`. Control characters, line breaks, bidirectional
    and other invisible formatting characters and noncharacters are rejected: they would change the text invisibly.
    """
    if len(text) > MAX_CHARACTERS:
        return f"it has {len(text)} characters; at most {MAX_CHARACTERS} are accepted"
    if text.isascii() and text.isprintable():
        return ""
    for character in _FLAG.sub("", text):
        kind = _REFUSED.get(unicodedata.category(character), "")
        if _is_noncharacter(character):
            kind = "noncharacters"
        if kind and character not in JOINERS:
            return f"it contains {kind} (U+{ord(character):04X}); give one line of plain text"
    return ""


def on_one_line(text: str) -> str:
    """The text on one line: line breaks become spaces, control and unprintable characters are escaped."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


def shown(value: Any) -> str:
    """A value as error messages quote it: short, on one line."""
    if isinstance(value, str):
        value = str(value)  # a subclass may have its own __repr__
    try:
        return _SHOWN.repr(value)
    except ValueError:  # Python refuses to format integers of thousands of digits
        return "a number of more than 4000 digits"


def _visible(character: str) -> str:
    if character in "\n\r\t\v\f\x85\u2028\u2029":
        return " "
    if character.isprintable() or character in JOINERS or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _is_noncharacter(character: str) -> bool:
    return ord(character) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(character) <= 0xFDEF
