"""loadstone: a wind tunnel and a measuring instrument for LLM serving."""

__version__ = "0.1.0"
