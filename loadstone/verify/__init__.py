"""Proof: what was measured against a claim, and against a contract. Pure."""
