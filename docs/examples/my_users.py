"""A user that a plan's file cannot describe: asks again while the answer is too short.

Named by a class of a plan: flow = "my_users.py:Persistent".
"""

from loadstone.traffic.flow import Ask, Flow, Local, User
from loadstone.traffic.request import Request

ENOUGH_TOKENS = 100
MOST = 3


class Persistent(User):
    """Looks something up, asks, and asks for more, three times at most."""

    def ask(self, request: Request) -> Flow:
        """Each question is a row; the lookup is a stage of the first one's row."""
        cut = yield Local("lookup", lambda: self.rng(request).randint(10, 60),
                          takes_s=0.005)  # fmt: skip
        question = request.but(output_tokens=min(request.output_tokens, cut))
        answered = 0
        for _ in range(MOST):
            answer = yield Ask(question)
            answered += answer.output_tokens
            if not answer.ok or answered >= ENOUGH_TOKENS:
                return
