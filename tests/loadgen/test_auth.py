"""Keys that commands and Entra ID tell: read, renewed in time, and never shown."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gevent
import pytest

from loadgen.auth import Credential, Token, credential_of, read_token, run_command
from loadgen.entra import NO_TOKEN, NOT_INSTALLED
from loadgen.options import read_options
from loadgen.target import API_VERSION, endpoint_of
from loadstone.errors import LoadstoneError, UsageError
from loadstone.wire.api import APIS

SECRET = "sk-from-a-command"


def script(folder: Path, code: str) -> str:
    """Return a command that runs Python code."""
    file = folder / "tell.py"
    file.write_text(code)
    return f"{sys.executable} {file}"


def credential(command: str, **environ: str) -> Credential:
    """Return what a command tells."""
    found = credential_of({"api_key_cmd": command}, environ)
    assert found is not None
    return found


def test_a_command_tells_the_key(tmp_path: Path) -> None:
    """With the run's environment, and no shell that would read it."""
    command = script(tmp_path, "import os; print(os.environ['K'] + '$HOME')")
    assert credential(command, K=SECRET).text == f"{SECRET}$HOME"


@pytest.mark.parametrize(
    ("printed", "expires"),
    [
        (f"{SECRET}\n", None),
        (json.dumps({"token": SECRET}), None),
        (json.dumps({"access_token": SECRET, "expires_in": 60}), 1060.0),
        (json.dumps({"accessToken": SECRET, "expires_on": 5000}), 5000.0),
        (json.dumps({"accessToken": SECRET, "expires_on": "5000"}), 5000.0),
    ],
)
def test_forms_of_what_is_printed(printed: str, expires: float | None) -> None:
    """The key alone, or the JSON of a cloud's command line."""
    token = read_token(printed, 1000.0)
    assert (token.text, token.expires_s) == (SECRET, expires)
    assert SECRET not in repr(token)


@pytest.mark.parametrize(
    "printed",
    ["", "two words", '{"key": "sk"}', "{", '{"token": "x", "expires_on": []}'],
)
def test_what_is_no_key(printed: str) -> None:
    """An error with what to do, without what was printed."""
    with pytest.raises(UsageError) as caught:
        read_token(printed, 0.0)
    assert caught.value.hint
    assert not printed or printed not in caught.value.message


@pytest.mark.parametrize(
    "code", ["raise SystemExit(3)", "import sys; sys.exit('sk-x')"]
)
def test_a_command_that_fails(code: str, tmp_path: Path) -> None:
    """Its status is told; what it wrote to its standard error may be a secret."""
    with pytest.raises(UsageError, match="ended with status") as caught:
        credential(script(tmp_path, code))
    assert caught.value.code == "key_command"
    assert "sk-x" not in caught.value.message + caught.value.hint


def test_a_command_that_is_not_there() -> None:
    """It is named."""
    with pytest.raises(UsageError, match="no-such-command: No such file"):
        run_command(["no-such-command"], {})


def test_one_source_only(tmp_path: Path) -> None:
    """Of two keys, one would be ignored; Entra ID is a source as well."""
    for given in (
        {"api_key_cmd": "x", "api_key_env": "Y"},
        {"api_key_file": "x", "auth": "entra"},
    ):
        with pytest.raises(UsageError, match="one, not both"):
            credential_of(given, {})


def test_a_key_file_is_read_again_when_the_key_is_refused(tmp_path: Path) -> None:
    """Who mounts secrets replaces the file."""
    file = tmp_path / "key"
    file.write_text("old\n")
    found = credential_of({"api_key_file": str(file)}, {})
    assert found is not None
    assert not found.renew("old")
    file.write_text("new\n")
    assert found.renew("old")
    assert (found.text, found.renewals) == ("new", 1)
    file.unlink()
    assert not found.renew("new")
    assert found.text == "new"


def test_many_refusals_at_once_ask_once() -> None:
    """The others wait for it and have the new key."""
    asked: list[float] = []

    def fetch() -> Token:
        asked.append(time.monotonic())
        gevent.sleep(0.02)
        return Token("new")

    found = Credential(Token("old"), fetch)
    renewing = [gevent.spawn(found.renew, "old") for _ in range(20)]
    gevent.joinall(renewing)
    assert [g.value for g in renewing] == [True] * 20
    assert len(asked) == 1


def test_a_token_is_renewed_before_it_ends() -> None:
    """A tenth of its life ahead, five minutes at most; while a run is on."""
    now = [1000.0]
    found = Credential(Token("a", 1600.0), lambda: Token("b"), clock=lambda: now[0])
    assert found.due_s() == 1540.0
    assert Credential(Token("a", 9000.0), clock=lambda: 0.0).due_s() == 8700.0
    assert Credential(Token("a")).due_s() is None

    told = iter([Token("b", time.time() + 0.2), Token("c")])
    found = Credential(Token("a", time.time() + 0.2), lambda: next(told))
    found.keep_fresh()
    with gevent.Timeout(10):
        while found.renewals < 2:
            gevent.sleep(0.01)
    assert found.text == "c"
    found.close()


FAKE = """
class DefaultAzureCredential:
    def get_token(self, scope):
        if {broken}:
            raise RuntimeError("no identity, and sk-hidden")
        class Token:
            token, expires_on = "jwt-" + scope.split("/")[2], 1900000000
        return Token()
"""


def fake_identity(folder: Path, *, broken: bool = False) -> dict[str, str]:
    """Return an environment that has a stand-in for azure-identity."""
    package = folder / "azure" / "identity"
    package.mkdir(parents=True)
    (folder / "azure" / "__init__.py").touch()
    (package / "__init__.py").write_text(FAKE.format(broken=broken))
    return {"PYTHONPATH": str(folder)}


def values(**given: str) -> dict[str, Any]:
    """Return options as they are read."""
    return read_options(given)


def test_entra_id_tells_a_token(tmp_path: Path) -> None:
    """For the scope asked for, in a process of its own; the header is a bearer's."""
    environ = fake_identity(tmp_path)
    given = values(auth="entra", azure_deployment="gpt")
    endpoint = endpoint_of("https://x.openai.azure.com", given, environ)
    key = "jwt-cognitiveservices.azure.com"
    assert endpoint.headers() == {"authorization": f"Bearer {key}"}
    assert endpoint.credential is not None
    assert endpoint.credential.due_s() == 1900000000 - 300
    assert endpoint.path(APIS["chat"]) == (
        f"/openai/deployments/gpt/chat/completions?api-version={API_VERSION}"
    )


def test_entra_id_that_fails(tmp_path: Path) -> None:
    """No identity and no library are told apart, each with its remedy."""
    environ = fake_identity(tmp_path, broken=True)
    with pytest.raises(LoadstoneError, match=f"status {NO_TOKEN}") as caught:
        endpoint_of("https://h", values(auth="entra"), environ)
    assert "az login" in caught.value.hint
    assert "sk-hidden" not in caught.value.message
    missing = tmp_path / "none" / "azure"
    missing.mkdir(parents=True)
    (missing / "__init__.py").touch()
    with pytest.raises(LoadstoneError, match=f"status {NOT_INSTALLED}") as caught:
        endpoint_of(
            "https://h", values(auth="entra"), {"PYTHONPATH": str(missing.parent)}
        )
    assert "loadstone[azure]" in caught.value.hint


@pytest.mark.parametrize(
    ("given", "api", "path"),
    [
        ({}, "chat", "/v1/chat/completions"),
        ({}, "embeddings", "/v1/embeddings"),
        ({"azure_deployment": "d", "azure_api_version": "2025-01-01"}, "embeddings",
         "/openai/deployments/d/embeddings?api-version=2025-01-01"),
        ({"azure_deployment": "d"}, "responses", "/openai/v1/responses"),
        ({"azure_deployment": "d", "azure_api_version": "v1"}, "chat",
         "/openai/v1/chat/completions"),
    ],
)  # fmt: skip
def test_paths(given: dict[str, str], api: str, path: str) -> None:
    """OpenAI's, and Azure's with a date and without."""
    endpoint = endpoint_of("http://h", values(**given), {})
    assert endpoint.target(endpoint.path(APIS[api])) == path


def test_how_a_key_is_shown() -> None:
    """As a bearer, or bare as Azure wants it; the option decides."""
    environ = {"K": "sk"}

    def headers(**given: str) -> dict[str, str]:
        return endpoint_of(
            "http://h", values(api_key_env="K", **given), environ
        ).headers()

    assert headers() == {"authorization": "Bearer sk"}
    assert headers(azure_deployment="d") == {"api-key": "sk"}
    assert headers(auth="api-key") == {"api-key": "sk"}
    assert headers(azure_deployment="d", auth="bearer") == {
        "authorization": "Bearer sk"
    }


@pytest.mark.parametrize(
    "given",
    [{"azure_api_version": "2025-01-01"}, {"azure_deployment": "a/b"},
     {"azure_deployment": "d", "azure_api_version": "1&key=x"}],
)  # fmt: skip
def test_what_azure_has_not(given: dict[str, str]) -> None:
    """A version without a deployment, names no path can carry."""
    with pytest.raises(UsageError):
        endpoint_of("http://h", values(**given), {})


def test_the_entra_process_alone(tmp_path: Path) -> None:
    """It prints JSON and nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "loadgen.entra", "https://a.test/.default"],
        env=fake_identity(tmp_path), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == {"token": "jwt-a.test", "expires_on": 1900000000}
