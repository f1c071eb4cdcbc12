"""What CUTLASS_MLA's kernel takes of the one buffer that all its launches share.

vLLM's ``ensure_size`` asks for ``num_reqs`` rows, the prefills of a mixed batch among them, and the
kernel is launched for the decodes alone. Where that is not there vLLM enlarges the buffer, and a
graph that was captured before keeps the old address (0.20.2, 0.26.0, 0.32.0 and 0.33.0 alike).
"""

__all__ = ["MOST_SPLITS", "most_auto_row_splits", "workspace_bytes"]

# Above it the kernel is reported to hang (vLLM's comment on FORCE_NUM_KV_SPLITS).
MOST_SPLITS = 16

# The kernel pads to 128 heads and keeps 512 values and a log-sum-exp a head, in float32.
BYTES_PER_ROW_AND_SPLIT = 128 * (512 + 1) * 4


def workspace_bytes(rows: int, splits: int) -> int:
    """Bytes that the kernel asks for, for ``rows`` requests of ``splits`` parts each."""
    return rows * splits * BYTES_PER_ROW_AND_SPLIT


def most_auto_row_splits(rows: int, sm_count: int) -> int:
    """The most rows x splits of a launch that chooses its splits itself (-1).

    The kernel's ``set_split_kv`` takes at most ``sm_count / rows`` splits of each row, and one.
    """
    return max(rows, sm_count)
