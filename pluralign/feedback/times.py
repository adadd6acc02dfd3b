"""What a cell says of when."""

from datetime import UTC, datetime

EARLIEST = 10**8
"""As seconds, in March 1973; smaller numbers are counters, or dates such as 20240131, rather than times."""
TIME = (
    "ISO 8601 such as 2024-01-31T16:59:52+01:00, or seconds or milliseconds since 1970, from March 1973 on if a "
    "number; a date in digits alone, such as 20240131, cannot be told from a counter: write 2024-01-31"
)


def seconds(word: str) -> float | None:
    """Return seconds since 1970 (UTC); None if the word is no time.

    A number is seconds, or milliseconds if seconds would be a far future; a text is ISO 8601, in UTC if it names no
    zone.
    """
    try:
        number = float(word)
    except ValueError:
        pass
    else:
        known = EARLIEST <= number < EARLIEST * 1_000_000
        return (number if number < EARLIEST * 1_000 else number / 1_000) if known else None
    try:
        moment = datetime.fromisoformat(word.removesuffix(" UTC"))
        found = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return found if found >= 0 else None
