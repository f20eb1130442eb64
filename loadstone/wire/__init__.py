"""OpenAI's bytes both ways, without I/O."""
