"""TORCH_MLA, the portable backend: MLA attention in plain PyTorch, on a CPU or GPU."""
