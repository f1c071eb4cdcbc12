"""From a vLLM command line to a tuned engine."""
