"""The endpoint's key: where it comes from, and what says that there is none."""

from pathlib import Path

import pytest

from loadgen.auth import credential_of
from loadgen.endpoint import Endpoint
from loadstone.errors import UsageError

KEY = "sk-made-up"


def key_of(given: dict[str, str | None], environ: dict[str, str]) -> str | None:
    """Return the key that the options name."""
    credential = credential_of(given, environ)
    return credential.text if credential else None


def values(**given: str | None) -> dict[str, str | None]:
    """Return the two options, None where not given."""
    return {"api_key_env": None, "api_key_file": None} | given


def test_a_key_file_is_read_without_its_newline(tmp_path: Path) -> None:
    """An editor ends a file with a newline; a header cannot hold one."""
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert key_of(values(api_key_file=str(file)), {}) == KEY


@pytest.mark.parametrize("content", ["", "\n", "  \n\n"])
def test_an_empty_key_file_is_no_key(tmp_path: Path, content: str) -> None:
    """A stack mounts the file in any case; no header is sent for nothing."""
    file = tmp_path / "key"
    file.write_text(content)
    key = key_of(values(api_key_file=str(file)), {})
    assert key is None
    assert Endpoint.parse("http://h", api_key=key).headers() == {}


def test_a_missing_key_file_is_told(tmp_path: Path) -> None:
    """A wrong path is a mistake, not a wish for no key."""
    with pytest.raises(UsageError, match="cannot read the key file"):
        key_of(values(api_key_file=str(tmp_path / "none")), {})


@pytest.mark.parametrize("environ", [{}, {"MY_KEY": ""}])
def test_an_unset_variable_is_told(environ: dict[str, str]) -> None:
    """Who names a variable means there to be a key in it."""
    with pytest.raises(UsageError, match="MY_KEY is not set"):
        key_of(values(api_key_env="MY_KEY"), environ)


def test_a_key_has_one_home(tmp_path: Path) -> None:
    """Of two keys, one would be ignored."""
    both = values(api_key_env="MY_KEY", api_key_file=str(tmp_path / "key"))
    with pytest.raises(UsageError, match="not both"):
        key_of(both, {"MY_KEY": KEY})


def test_no_option_no_key() -> None:
    """The mock asks for none."""
    assert key_of(values(), {}) is None
