"""From the options to the endpoint that they name: its URL, key, TLS and paths."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from loadstone.errors import UsageError
from loadstone.traffic.plan import Plan

from .auth import Credential, credential_of
from .endpoint import Azure, Endpoint

HEADERS: Final = {"bearer": "authorization", "api-key": "api-key",
                   "entra": "authorization"}  # fmt: skip
"""How a key is shown, by `--auth`."""

API_VERSION: Final = "2024-10-21"
"""The last dated version of Azure's inference API that is generally available."""
_NO_KEY: Final = {"api_key_cmd": None}
"""What a tenant's own key takes the place of, beside what it names itself."""
ENTRA_SCOPE: Final = "https://cognitiveservices.azure.com/.default"


def endpoints_of(
    hosts: Sequence[str], values: Mapping[str, Any], environ: Mapping[str, str]
) -> list[Endpoint]:
    """Return the endpoints at `hosts`, key and TLS settings as the options say.

    They share one key. Raises `UsageError`, and `LoadstoneError` if a command that
    should print the key fails.
    """
    for host in hosts:
        check_url(host)
    credential = credential_of(values, environ)
    return [with_credential(host, values, credential) for host in hosts]


def endpoints_of_tenants(
    plan: Plan, values: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, list[Endpoint]]:
    """Return the same for each tenant of a plan that has a key of its own."""
    return {
        tenant.name: endpoints_of(
            plan.hosts,
            {
                **values,
                **_NO_KEY,
                "api_key_env": tenant.key_env,
                "api_key_file": tenant.key_file,
            },
            environ,
        )
        for tenant in plan.tenants
        if tenant.key_env or tenant.key_file
    }


def endpoint_of(
    host: str, values: Mapping[str, Any], environ: Mapping[str, str]
) -> Endpoint:
    """Return the one endpoint at `host`; see `endpoints_of`."""
    return endpoints_of([host], values, environ)[0]


def with_credential(
    host: str, values: Mapping[str, Any], credential: Credential | None
) -> Endpoint:
    """Return the endpoint at `host` with that key."""
    azure = _azure(values)
    by_default = HEADERS["api-key" if azure else "bearer"]
    return Endpoint.parse(
        host,
        credential=credential,
        key_header=HEADERS.get(values["auth"], by_default),
        azure=azure,
        ca_file=values["ca_file"],
        proxy=values["proxy"],
    )


def check_url(host: str) -> None:
    """Refuse a URL with a secret in it before it gets any further.

    Raises `UsageError`.
    """
    Endpoint.parse(host)


def _azure(values: Mapping[str, Any]) -> Azure | None:
    deployment = values["azure_deployment"]
    if deployment is None:
        if values["azure_api_version"] is not None:
            raise UsageError(
                "--azure-api-version is for a deployment",
                hint="give --azure-deployment NAME",
            )
        return None
    return Azure(deployment, values["azure_api_version"] or API_VERSION)
