"""Output on terminals that lack characters of ours: each that cannot be encoded becomes what ASCII has for it.

Python itself would end with a `UnicodeEncodeError` at the first '×', or print a backslash and digits.
"""

from __future__ import annotations

import codecs
import sys
import unicodedata

EQUIVALENTS = {
    "×": "x",
    "–": "-",
    "\N{EM DASH}": "-",
    "\N{MINUS SIGN}": "-",
    "·": "-",
    "…": "...",
    "→": "->",
    "±": "+-",
    "≤": "<=",
    "≥": ">=",
    "δ": "delta",
    "█": "#",
    "•": "*",
    "●": "*",
    "√": "sqrt ",
    "│": "|",
    "└": "+",
    "─": "-",
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
}
ERRORS = "ascii-equivalents"
"""Name of the error handler."""
ASCII = "terminal-ascii"
"""Name of a codec that is ASCII; click writes UTF-8 to a stream whose codec is 'ascii', whatever the terminal shows."""


def prepare_terminal() -> None:
    """Make standard output and standard error write every character, as itself or as its equivalent in ASCII."""
    codecs.register_error(ERRORS, _encoded)
    codecs.register(_found)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a program that uses the commands may have put another object there
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            reconfigure(encoding=ASCII if is_ascii else None, errors=ERRORS)


def in_ascii(text: str) -> str:
    """A text with the nearest ASCII for each character: letters lose their accents, what has no equivalent is '?'."""
    return "".join(_equivalent(character) for character in text)


def _equivalent(character: str) -> str:
    if character in EQUIVALENTS:
        return EQUIVALENTS[character]
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode("ascii")
    return plain or "?"


def _encoded(error: UnicodeError) -> tuple[bytes, int]:
    """What stands for the characters that cannot be encoded.

    A byte of a file name that is no text in the terminal's encoding is written as that byte.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    said = b""
    for character in error.object[error.start : error.end]:
        is_byte = 0xDC80 <= ord(character) <= 0xDCFF
        said += bytes([ord(character) - 0xDC00]) if is_byte else in_ascii(character).encode("ascii")
    return said, error.end


def _found(name: str) -> codecs.CodecInfo | None:
    """The codec of that name; Python looks names up with underscores."""
    if name.replace("_", "-") != ASCII:
        return None
    ascii_codec = codecs.lookup("ascii")
    return codecs.CodecInfo(
        name=ASCII,
        encode=ascii_codec.encode,
        decode=ascii_codec.decode,
        incrementalencoder=ascii_codec.incrementalencoder,
        incrementaldecoder=ascii_codec.incrementaldecoder,
        streamreader=ascii_codec.streamreader,
        streamwriter=ascii_codec.streamwriter,
    )
