"""A run of LLMeter: `python llmeter_session.py URL KEY` prints its figures."""

import asyncio
import json
import sys

from llmeter.endpoints.openai import (
    OpenAICompletionEndpoint,
    OpenAICompletionStreamEndpoint,
)
from llmeter.runner import Runner

URL, KEY = sys.argv[1:]
TOKENS = 10
PLACE = {"model_id": "llama", "base_url": f"{URL}/v1", "api_key": KEY}


async def main() -> None:
    """Measure eight streams from two clients, and one whole answer."""
    payload = OpenAICompletionEndpoint.create_payload(
        user_message="hello", max_tokens=TOKENS
    )
    runner = Runner(OpenAICompletionStreamEndpoint(**PLACE))
    result = await runner.run(payload=payload, n_requests=4, clients=2)
    whole = OpenAICompletionEndpoint(**PLACE).invoke(payload)
    told = {
        "requests": result.stats["total_requests"],
        "failed": result.stats["failed_requests"],
        "output_tokens": result.stats["total_output_tokens"],
        "ttft": [r.time_to_first_token for r in result.responses],
        "ttlt": [r.time_to_last_token for r in result.responses],
        "whole": whole.num_tokens_output,
    }
    sys.stdout.write(f"\n{json.dumps(told)}\n")


asyncio.run(main())
