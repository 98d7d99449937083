"""Text of others, fit to be shown: names come from model files, libraries and file systems, and may
hold anything."""

import os

# The longest name or path without a space, and the longest line: both are far above what people
# write.
LONGEST_WORD, LONGEST_LINE = 300, 4000
# The end of a long name stays, for that is where names differ.
_TAIL = 60
# Characters of no width that count as printable: fillers and variation selectors.
_UNSEEN = {
    0x034F,
    0x115F,
    0x1160,
    0x17B4,
    0x17B5,
    0x180B,
    0x180C,
    0x180D,
    0x180F,
    0x2800,
    0x3164,
    0xFFA0,
}
_UNSEEN |= {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}


def printable(text: str) -> str:
    """Control characters, line breaks, and what changes the direction of text or has no width, as
    escapes; the rest as it is.

    Bytes of file names that are not UTF-8, which Python keeps as lone surrogates, are shown as
    bytes.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() and ord(c) not in _UNSEEN else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    escape = character.encode("unicode_escape").decode()
    return escape if escape != character else f"\\u{code:04x}"


def shortened(text: str, longest: int) -> str:
    """At most `longest` characters, of which the last ones are the text's last."""
    if len(text) <= longest:
        return text
    tail = min(_TAIL, longest // 3)
    return f"{text[: longest - tail - 1]}…{text[-tail:]}"


def line(text: str) -> str:
    """One line of a report or an error: printable, long words and long lines cut."""
    # Cut before anything looks at each character: a name may have megabytes.
    words = (shortened(word, LONGEST_WORD) for word in text.split(" "))
    return shortened(printable(shortened(" ".join(words), LONGEST_LINE)), 2 * LONGEST_LINE)


def first_line(error: BaseException, limit: int = 200) -> str:
    """The first line of an error's message that is not blank, at most `limit` characters; its type
    where it says nothing."""
    return _lines(error)[0][:limit]


def last_line(error: BaseException, limit: int = 200) -> str:
    """The last line of an error's message that is not blank, as TVM and compilers put the reason
    there; else as first_line."""
    return _lines(error)[-1][:limit]


def _lines(error: BaseException) -> list[str]:
    lines = [stripped for line in str(error).splitlines() if (stripped := line.strip())]
    return lines or [type(error).__name__]


def can_be_a_path(text: str) -> bool:
    """Whether a file can be called that: no zero in it, and no letters without bytes."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False
