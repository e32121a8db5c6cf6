"""What a file is instead of what it should be, by its first bytes. Standard library only."""

from __future__ import annotations

import re
from pathlib import Path

LOOK_BYTES = 512
"""How much of a file's beginning tells."""

_CONTENTS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "is a Git LFS pointer and not the file it stands for: fetch that with `git lfs pull`"),
    (b"\x1f\x8b", "is compressed with gzip: give it a name that ends in .gz behind its own ending"),
    (b"BZh", "is compressed with bzip2: unpack it first"),
    (b"\xfd7zXZ", "is compressed with xz: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd: unpack it first"),
    (b"7z\xbc\xaf", "is a 7z archive: unpack it first"),
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook: save the sheet as CSV UTF-8"),
    (b"ARROW1", "is an Arrow file: save it as Parquet"),
    (b"\xff\xff\xff\xff", "is an Arrow stream, as `save_to_disk` of datasets writes it: save it with `to_parquet`"),
    (b"SQLite format 3", "is a SQLite database: export the table as CSV"),
    (b"%PDF", "is a PDF: a dataset must be rows"),
    (b"\xff\xfe\x00\x00", "line 1 is not UTF-8 but UTF-32: save the file as UTF-8"),
    (b"\xff\xfe", "line 1 is not UTF-8 but UTF-16: save the file as UTF-8"),
    (b"\xfe\xff", "line 1 is not UTF-8 but UTF-16: save the file as UTF-8"),
)
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head|\?xml)", re.IGNORECASE)


def named(head: bytes) -> str | None:
    """What a file is by its first bytes where these are of no dataset or model: a clause without the file's name.

    None for what may be text, and for Parquet, whose files begin with PAR1.
    """
    if _PAGE.match(head) is not None:
        return "is an HTML or XML page and not the file: whatever was asked for it answered with a page instead"
    if head.startswith(b"PK\x03\x04"):
        is_workbook = b"xl/" in head or b"[Content_Types].xml" in head
        return "is an Excel workbook: save the sheet as CSV UTF-8" if is_workbook else "is a zip archive: unpack it"
    first, second = head[0:8:2], head[1:8:2]
    if len(head) >= 8 and any(all(one) and not any(other) for one, other in ((first, second), (second, first))):
        return "line 1 is not UTF-8 but UTF-16: save the file as UTF-8"
    return next((said for begins, said in _CONTENTS if head.startswith(begins)), None)


def stand_in(path: Path) -> str | None:
    """What `named` says of a file that is no plain text: a model's weights or settings. Raises OSError."""
    with path.open("rb") as file:
        return named(file.read(LOOK_BYTES))
