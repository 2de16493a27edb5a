"""What a file that was uploaded as a model really is, by its first bytes; nothing is opened or run to find out."""

from __future__ import annotations

import re

_STARTS = (
    (b"PK\x03\x04", "a zip archive, as .keras and .npz files are"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as .h5 models are"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"#!", "a script"),
)
# Protocol 2 and above begin with their number; older ones with an opcode that names a module, opens a list or a tuple.
_PICKLE = re.compile(rb"\x80[\x02-\x05]|c[A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n|\(l?(?:p?\d*\n|S|c|d|i[A-Za-z_])")


def kind_of_file(content: bytes) -> str | None:
    r"""Name what a file is, when it is a kind that a model is often sent as and that is not accepted; else None.

    >>> kind_of_file(b"\x80\x04\x95")
    'a pickle, which runs code when it is read'
    >>> kind_of_file(b"PK\x03\x04...")
    'a zip archive, as .keras and .npz files are'
    """
    if _PICKLE.match(content):
        return "a pickle, which runs code when it is read"
    if content[257:262] == b"ustar":
        return "a tar archive"
    return next((kind for start, kind in _STARTS if content.startswith(start)), None)
