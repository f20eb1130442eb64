"""Tenants of a plan: who asks, and where each one's key is found, never the key."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from .fields import TEXT, Field, KeyedError, read_table

DEFAULT: Final = "default"
"""Whose requests are that name no tenant."""

FIELDS: Final = (
    Field(name="name", kind=TEXT, needed=True, text="its name in classes and rows"),
    Field(name="key_env", kind=TEXT, text="environment variable that holds its key"),
    Field(name="key_file", kind=TEXT, text="file that holds its API key"),
)  # fmt: skip
"""The keys of `[[tenant]]` in a plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One tenant; without a key of its own it has the endpoint's."""

    name: str
    key_env: str | None = None
    key_file: str | None = None

    @classmethod
    def from_toml(cls, table: Mapping[str, object]) -> Self:
        """Read a `[[tenant]]`; raises `KeyedError` naming the key that is wrong."""
        tenant = cls(**read_table(FIELDS, table, "a tenant"))
        if tenant.key_env and tenant.key_file:
            raise KeyedError("give key_env or key_file, not both", key="key_file")
        return tenant

    def to_toml(self) -> dict[str, Any]:
        """Return the same as TOML-ready values."""
        named = {"name": self.name, "key_env": self.key_env, "key_file": self.key_file}
        return {name: value for name, value in named.items() if value is not None}
