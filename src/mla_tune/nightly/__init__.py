"""Retuning night after night: what is due, sentinels, and the history of each entry."""
