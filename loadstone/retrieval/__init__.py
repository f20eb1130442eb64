"""Retrieval: documents, their passages, and the stores that find them by a vector."""
