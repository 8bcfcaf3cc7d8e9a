"""Output on terminals without Unicode: characters that cannot be encoded are replaced by ASCII equivalents.

Python itself would raise `UnicodeEncodeError` at the first '×', or print an escape sequence.
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
    **dict(zip("▁▂▃▄▅▆▇█", ".:-=+*%#", strict=True)),
    "━": "=",
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
"""Name of an ASCII codec; click writes UTF-8 to streams whose codec is named 'ascii'."""


def prepare_terminal() -> None:
    """Let standard output and standard error write every character, as itself or as its ASCII equivalent."""
    codecs.register_error(ERRORS, _encoded)
    codecs.register(_found)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a calling program may have replaced the stream
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            reconfigure(encoding=ASCII if is_ascii else None, errors=ERRORS)


def in_ascii(text: str) -> str:
    """A text in ASCII: letters lose their accents, and characters without an equivalent become '?'."""
    return "".join(_equivalent(character) for character in text)


def _equivalent(character: str) -> str:
    if character in EQUIVALENTS:
        return EQUIVALENTS[character]
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode("ascii")
    return plain or "?"


def _encoded(error: UnicodeError) -> tuple[bytes, int]:
    """The replacement for characters that cannot be encoded.

    Undecodable bytes of file names are written unchanged.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    encoded = b""
    for character in error.object[error.start : error.end]:
        is_byte = 0xDC80 <= ord(character) <= 0xDCFF
        encoded += bytes([ord(character) - 0xDC00]) if is_byte else in_ascii(character).encode("ascii")
    return encoded, error.end


def _found(name: str) -> codecs.CodecInfo | None:
    """The codec named `ASCII`; Python passes names with underscores."""
    if name.replace("_", "-") != ASCII:
        return None
    ascii_codec = codecs.lookup("ascii")
    return codecs.CodecInfo(*ascii_codec, ascii_codec.incrementalencoder, ascii_codec.incrementaldecoder, name=ASCII)
