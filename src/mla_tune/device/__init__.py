"""The GPU or CPU under a run: which one, its driver, its facts, and the lock on it."""
