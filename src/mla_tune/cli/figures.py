"""Times and speed-ups as people read them."""

__all__ = ["told_duration", "told_speedup", "told_time"]

from mla_tune.table import Speedup


def told_time(us: float) -> str:
    """Microseconds in the unit that keeps the digits few.

    Examples:
        >>> told_time(41.08), told_time(1371.2), told_time(2_345_678)
        ('41.1 µs', '1.37 ms', '2.35 s')
    """
    if us < 999.95:
        return f"{us:.1f} µs"
    return f"{us / 1000:.2f} ms" if us < 999_995 else f"{us / 1e6:.2f} s"


def told_duration(seconds: float) -> str:
    """How long something takes, as a person says it.

    Examples:
        >>> told_duration(48.2), told_duration(125), told_duration(7_000)
        ('48 s', '2 min', '1.9 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def told_speedup(speedup: Speedup | None) -> str:
    """The median with its interval, or a dash."""
    return "–" if speedup is None else str(speedup)
