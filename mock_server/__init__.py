"""The mock inference server: the emulated engine behind an OpenAI-compatible API."""
