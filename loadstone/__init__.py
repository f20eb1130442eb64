"""loadstone: a wind tunnel and a measuring instrument for LLM serving.

What it offers to Python code is in `loadstone.api`, and can be had from here; it is
loaded when it is first asked for, so that `import loadstone` costs nothing.
"""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # What looks a module over asks for `__path__` and the like: that loads nothing.
    if name == "__all__" or not name.startswith("_"):
        api = importlib.import_module(f"{__name__}.api")
        if name == "__all__" or name in api.__all__:
            return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__getattr__("__all__"), "__version__"])
