"""All that knows vLLM: its backends, the session that measures them, the plugin that serves."""
