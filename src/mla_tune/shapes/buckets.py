"""Numbers of requests or tokens, rounded: to eighths of an octave or to whole ones."""

__all__ = ["bucket_end", "bucket_start", "power_near"]


def bucket_start(number: int) -> int:
    """Round down to an eighth of an octave: 1024 stands for 1024 to 1151. Exact up to 16.

    Lookups tell no more apart.
    Of two numbers in a bucket one is at most 1.125 times the other.
    """
    shift = number.bit_length() - 4
    return number >> shift << shift if shift > 0 else number


def bucket_end(start: int) -> int:
    """The last number of the bucket that begins at ``start``."""
    shift = start.bit_length() - 4
    return start + (1 << shift) - 1 if shift > 0 else start


def power_near(number: int) -> int:
    """The nearest power of two, by ratio: off by a factor of 1.41 at most."""
    low = 1 << (number.bit_length() - 1)
    return low if number * number <= 2 * low * low else 2 * low
