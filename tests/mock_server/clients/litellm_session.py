"""A session of litellm: `python litellm_session.py URL KEY` prints what it was told."""

import json
import sys
from typing import Any

import litellm

URL, KEY = sys.argv[1:]
CALL: dict[str, Any] = {
    "model": "openai/llama",
    "messages": [{"role": "user", "content": "hello"}],
    "api_base": f"{URL}/v1",
    "api_key": KEY,
    "num_retries": 0,
}


def main() -> None:
    """Talk to the server in every way that this litellm can.

    Its tools and responses want a package that it does not ask for.
    """
    whole = litellm.completion(**CALL)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(litellm.completion(**CALL, **options))
    azure = litellm.completion(
        **(CALL | {"model": "azure/llama", "api_base": URL}), api_version="2024-10-21"
    )
    vectors = litellm.embedding(
        model="openai/llama", input=["a", "b"], api_base=f"{URL}/v1", api_key=KEY
    )
    try:
        litellm.completion(**(CALL | {"api_key": "wrong"}))
        refused = "nothing"
    except litellm.AuthenticationError as error:
        refused = type(error).__name__
    told = {
        "whole": whole.choices[0].message.content,
        "usage": whole.usage.completion_tokens,
        "streamed": "".join(c.choices[0].delta.content or "" for c in chunks),
        "azure": azure.choices[0].message.content,
        "vectors": [len(one["embedding"]) for one in vectors.data],
        "refused": refused,
    }
    sys.stdout.write(f"\n{json.dumps(told)}\n")


main()
