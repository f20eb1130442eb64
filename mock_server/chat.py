"""Chat and text completions: the dialects that share vLLM's chunks."""

from dataclasses import dataclass, field
from functools import partial
from typing import Final

from loadstone.traffic.record import Truth
from loadstone.wire.answer import Answer
from loadstone.wire.openai_reply import (
    CHAT,
    TEXT,
    Ending,
    Extras,
    ReplyFormat,
    StreamFormat,
    Style,
    Usage,
)
from loadstone.wire.openai_request import (
    GenerationRequest,
    parse_chat,
    parse_completion,
)
from loadstone.wire.script import Script

from .generate import Dialect, Setting


@dataclass(frozen=True, slots=True)
class _Chunks:
    """Writes the answers to one request as chat or text completions."""

    asked: GenerationRequest
    setting: Setting
    reply: ReplyFormat
    extras: Extras
    ending: Ending | None = field(default=None)

    def form(self, index: int) -> StreamFormat:
        """Return the bytes around the events of one answer."""
        return self.reply.stream(
            include_usage=self.asked.include_usage, index=index, ending=self.ending
        )

    def script(self, index: int) -> Script | None:
        """Return the events of one answer, None if it is filler and nothing else."""
        answer: Answer = self.setting.answers[index]
        extras = self.extras
        echoed = self.asked.echoed
        if not (answer.segments or extras.continuous_usage or echoed) and (
            extras.top_logprobs is None
        ):
            return None
        place = index // self.asked.n
        prompt = self.asked.prompts[place]
        echo = echoed[place] if echoed else ()
        return self.reply.script(answer, prompt.tokens, index, extras, echo)

    def body(self, usage: Usage, truth: Truth | None) -> bytes:
        """Write all answers as one body."""
        echoes = [echo for echo in self.asked.echoed for _ in range(self.asked.n)]
        return self.reply.body(
            self.setting.answers, usage, truth, self.extras.top_logprobs, echoes
        )


def _reply(style: Style, asked: GenerationRequest, setting: Setting) -> _Chunks:
    form = ReplyFormat(
        setting.id, setting.created, setting.model, setting.chunked, style
    )
    extras = Extras(
        top_logprobs=asked.logprobs, continuous_usage=asked.continuous_usage
    )
    choices = len(setting.answers)
    return _Chunks(
        asked, setting, form, extras, Ending(choices, asked.n) if choices > 1 else None
    )


CHAT_COMPLETIONS: Final = Dialect(
    operation="chat",
    path="/chat/completions",
    prefix="chatcmpl-",
    parse=parse_chat,
    reply=partial(_reply, CHAT),
)
COMPLETIONS: Final = Dialect(
    operation="text_completion",
    path="/completions",
    prefix="cmpl-",
    parse=parse_completion,
    reply=partial(_reply, TEXT),
)
