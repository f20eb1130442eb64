"""Clients that others wrote hold real sessions with the server, each in its process."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import REPOSITORY

from loadstone.wire.tokens import count

Maker = Callable[..., Any]
CLIENTS = Path(__file__).parent / "clients"
PACKAGES = REPOSITORY / ".tools" / "node"
LENGTH = 12

pytestmark = pytest.mark.timeout(100)


@pytest.fixture
def session(mock: Maker) -> Maker:
    """Give a runner of session scripts against a server that wants a key."""

    def run(*command: str | Path) -> Any:
        async def main() -> bytes:
            async with mock(length=LENGTH, api_key="sesame") as server:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    server.url,
                    "sesame",
                    stdout=subprocess.PIPE,
                    # Without it litellm asks the internet for prices, three times.
                    env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
                )
                told, _ = await asyncio.wait_for(process.communicate(), 90)
                assert process.returncode == 0
                return told

        return json.loads(asyncio.run(main()).splitlines()[-1])

    return run


def test_litellm(session: Maker) -> None:
    """Chat whole and streamed, Azure's paths, embeddings, its own errors."""
    told = session(sys.executable, CLIENTS / "litellm_session.py")
    assert count(told["whole"]) == told["usage"] == LENGTH
    assert told["streamed"] == told["azure"] == told["whole"]
    assert told["vectors"] == [1024, 1024]
    assert told["refused"] == "AuthenticationError"


def test_llmeter(session: Maker) -> None:
    """A benchmark reads its tokens and its times off the stream."""
    told = session(sys.executable, CLIENTS / "llmeter_session.py")
    assert (told["requests"], told["failed"]) == (8, 0)
    assert told["output_tokens"] == 8 * 10
    assert told["whole"] == 10
    # Ten tokens in steps of 2 ms, however late the client looks.
    for first, last in zip(told["ttft"], told["ttlt"], strict=True):
        assert 0 < first <= last
        assert last > 9 * 0.002


def test_openai_for_node(session: Maker) -> None:
    """The other official client: what it parses is what was sent."""
    node = shutil.which("node")
    if node is None or not (PACKAGES / "node_modules" / "openai").exists():
        told = "no openai for Node here: `make tools` brings it where there is npm"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(told)
    told = session(node, CLIENTS / "openai_session.mjs", PACKAGES)
    assert count(told["whole"]) == told["usage"] == LENGTH
    assert told["streamed"] == told["azure"] == told["whole"]
    assert isinstance(told["arguments"]["a"], int)
    assert told["text"] == 4
    assert told["vectors"] == [1024, 1024]
    assert told["kinds"][0] == "response.created"
    assert told["kinds"][-1] == "response.completed"
    assert told["kinds"].count("response.output_text.delta") == LENGTH
    assert count(told["response"]) == LENGTH
    assert told["refused"] == ["NotFoundError", 404, "model_not_found"]
