"""loadstone: a wind tunnel and a measuring instrument for LLM serving.

What it offers to Python code is in `loadstone.api`, and can be had from here; it is
loaded when it is first asked for, so that `import loadstone` costs nothing.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Ask",
    "CatalogError",
    "Flow",
    "LoadstoneError",
    "Local",
    "NotModelledError",
    "Preset",
    "Request",
    "RequestRecord",
    "RunFiles",
    "UsageError",
    "User",
    "load_preset",
    "models",
    "open_run",
    "plans",
    "presets",
    "simulate",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.api"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
