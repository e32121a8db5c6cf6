"""Numbers, sizes and times as people read them, and text from anywhere made safe for a terminal."""

from __future__ import annotations

import unicodedata


def count(number: float) -> str:
    """950 -> 950, 12345 -> 12.3k, 4884480 -> 4.88M."""
    for limit, divisor, unit in ((1e3, 1, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M"), (float("inf"), 1e9, "B")):
        if abs(number) < limit * 0.9995:
            value = number / divisor
            return f"{value:.0f}" if not unit else f"{value:.3g}{unit}"
    return f"{number:.3g}"


def size(size_bytes: float) -> str:
    """1536 -> 1.5 KiB."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1023.95:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def parameter_count(number: int) -> str:
    """134515008 -> 135M, 8190735360 -> 8.2B."""
    for unit, size in (("B", 10**9), ("M", 10**6)):
        if number >= size:
            value = number / size
            return f"{value:.0f}{unit}" if value >= 100 else f"{value:.1f}{unit}"
    return str(number)


def download_size(number: int) -> str:
    """16381470720 -> 16.4 GB; decimal units, as hubs show them."""
    return f"{number / 10**9:.1f} GB" if number >= 10**9 else f"{number / 10**6:.0f} MB"


def duration(seconds: float) -> str:
    """42 -> 42s, 750 -> 12m 30s, 7500 -> 2h 05m, 200000 -> 2d 07h."""
    whole = max(0, round(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02d}h"
    if hours:
        return f"{hours}h {minute:02d}m"
    return f"{minutes}m {second:02d}s" if minutes else f"{second}s"


def one_line(text: str, limit: int | None = None) -> str:
    """Text on one line, without control characters: what a model or a dataset says must not steer the terminal."""
    kept = "".join(" " if char.isspace() else char for char in text if char.isspace() or _is_shown(char))
    joined = " ".join(kept.split())
    return joined if limit is None or len(joined) <= limit else joined[: limit - 1] + "…"


def _is_shown(char: str) -> bool:
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn")


def encodable(text: str, encoding: str | None) -> str:
    """Text that a stream of this encoding can take; what it cannot show becomes ?."""
    name = encoding or "ascii"
    return text.replace("…", "...").encode(name, "replace").decode(name) if not _takes(name, text) else text


def _takes(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
