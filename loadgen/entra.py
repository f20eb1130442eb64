"""Prints an Entra ID token as JSON: `python -m loadgen.entra SCOPE`.

A process of its own, whose output is a pipe: see `loadgen.auth`. `azure-identity` finds
out who we are: a service principal in the environment, a workload or managed identity,
or whoever signed in with Azure's command line.
"""

import json
import sys
from typing import Final

NOT_INSTALLED: Final = 3
NO_TOKEN: Final = 4


def main(scope: str) -> int:
    """Print the token for `scope`; return the exit status."""
    try:
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - an extra
    except ImportError:
        return NOT_INSTALLED
    try:
        token = DefaultAzureCredential().get_token(scope)
    except Exception as failed:  # noqa: BLE001 - of many kinds, none of them ours
        sys.stderr.write(f"{type(failed).__name__}\n")
        return NO_TOKEN
    sys.stdout.write(json.dumps({"token": token.token, "expires_on": token.expires_on}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
