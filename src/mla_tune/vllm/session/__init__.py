"""One of vLLM's backends set up on a device for measuring, without an engine."""
