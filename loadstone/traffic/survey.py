"""What a plan's requests are as a whole: seen once, before any is sent."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import UsageError
from ..units import Tokens
from .lengths import Lengths
from .plan import Plan, plan_hash
from .request import Request


@dataclass(slots=True)
class Survey:
    """Facts about all requests of a plan."""

    requests: int | None = 0
    """None for a closed loop, which has no schedule."""
    longest: Tokens = 0
    """Most tokens of prompt and declared answer together."""
    longest_id: str = ""
    prefixes: bool = False
    """Some have prompts that begin alike."""
    priorities: bool = False
    """Some have a priority of their own."""
    tenants: bool = False
    """They are of more than one tenant."""
    plan_hash: str = ""

    def refuse_beyond(self, max_model_len: Tokens) -> None:
        """Raise `UsageError` if the engines could not serve the longest."""
        if self.longest > max_model_len:
            raise UsageError(
                f"{self.longest_id} has {self.longest} tokens, prompt and answer"
                f" together; max_model_len is {max_model_len}",
                hint="raise --max-model-len, or leave such requests out",
                code="context_length_exceeded",
            )


def survey(plan: Plan, requests: Iterable[Request]) -> Survey:
    """Go through a plan's requests once, keeping none."""
    seen, tenants = Survey(), set[str]()

    def noted() -> Iterator[Request]:
        count = 0
        for count, request in enumerate(requests, 1):  # noqa: B007 - the last is kept
            declared = request.max_output_tokens or request.output_tokens
            if (length := request.input_tokens + declared) > seen.longest:
                seen.longest, seen.longest_id = length, f"request {request.id}"
            seen.prefixes |= bool(request.prefix or request.messages)
            seen.priorities |= request.priority != 0
            tenants.add(request.tenant)
            yield request
        seen.requests = count
        seen.tenants = len(tenants) > 1

    seen.plan_hash = plan_hash(plan, noted())
    return seen


def survey_of_users(plan: Plan, lengths: tuple[Lengths, Lengths]) -> Survey:
    """Return what can be said of a closed loop beforehand: the longest there may be."""
    answer = plan.max_tokens or lengths[1].tokens[-1]
    return Survey(
        requests=None,
        longest=lengths[0].tokens[-1] + answer,
        longest_id=f"the longest request of {plan.scenario}",
        plan_hash=plan_hash(plan, ()),
    )
