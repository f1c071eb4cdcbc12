"""Knobs, plans made of them, and the bounds that a plan must keep."""
