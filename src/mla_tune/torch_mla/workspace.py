"""A figure that both TORCH_MLA's facts, which load no torch, and its attention need."""

__all__ = ["WORKSPACE_BYTES"]

# Scores of the decode path are materialised; requests beyond this are handled in turns.
WORKSPACE_BYTES = 256 * 2**20
