"""A plan in virtual time: the rows that a live run would have written."""

from collections.abc import Callable, Iterator
from math import inf

from ..buckets import LogHistogram
from ..traffic.coursing import Coursing
from ..traffic.plan import Plan
from ..traffic.record import Outcome, RequestRecord, TokensSource, Truth
from ..traffic.source import Source
from ..units import Seconds, Tokens
from .fleet import Cluster
from .sequence import Step
from .virtual import Served, serve, whole_sequence


class Simulation:
    """One run of a plan's requests on fresh engines."""

    def __init__(
        self,
        plan: Plan,
        cluster: Cluster,
        source: Source,
        *,
        block_size: Tokens,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepare it.

        `block_size` is of the engines' KV cache; `stopping` is asked at each event and
        ends the run early.
        """
        self.plan = plan
        self.now: Seconds = 0.0
        """How far it has come: the end of the last step."""
        self.icl = LogHistogram()
        """Gaps between tokens outside the warm-up: a step is one for all that decode in
        it, and where they speculate the others of a step come at once, as the mock
        writes them. The gap in which a disaggregated request moves is not among them.
        """
        self._cluster = cluster
        self._block_size = block_size
        self._source = source
        self._stopping = stopping

    def __repr__(self) -> str:
        return f"<Simulation of {self.plan.loop} at {self.now:g} s>"

    @property
    def until(self) -> Seconds:
        """When it ends at the latest: drained. An offline run goes on to its end."""
        offline = self.plan.loop == "offline"
        return inf if offline else self.plan.duration_s + self.plan.drain_s

    def rows(self) -> Iterator[RequestRecord]:
        """Run, and yield each request as it ends.

        What is left is `incomplete` after the drain and `cancelled` after a stop.
        """
        served = serve(
            self._cluster,
            self._source,
            on_step=self._count_gaps,
            sequence_of=whole_sequence(self._block_size),
            until=self.until,
            stopping=self._stopping,
        )
        for each in served:
            row = self._answer(each) if each.sequence.last_s else self._left(each)
            if isinstance(self._source, Coursing):
                yield from self._source.rows(each.request, row)
            else:
                yield row

    def _count_gaps(self, _: int, step: Step) -> None:
        self.now = step.end_s
        if step.decoding and step.start_s >= self.plan.warmup_s:
            self.icl.add(step.end_s - step.start_s, step.decoding)
            at_once = step.decoding * (step.advance - 1) - step.clipped
            if at_once:
                self.icl.add(0.0, at_once)

    def _answer(self, served: Served) -> RequestRecord:
        request, sequence, engine, sent_s = served
        first, last = sequence.first_s, sequence.last_s
        assert first is not None
        assert last is not None
        declared = request.max_output_tokens or request.output_tokens
        return RequestRecord(
            id=request.id,
            scenario=request.scenario,
            tenant=request.tenant,
            stage=request.stage,
            intended_s=request.intended_s,
            sent_s=sent_s,
            end_s=last,
            outcome=Outcome.OK,
            first_s=first,
            first_output_s=first,
            last_s=last,
            asked_input_tokens=request.input_tokens,
            asked_output_tokens=declared,
            input_tokens=request.input_tokens,
            output_tokens=request.output_tokens,
            first_event_tokens=1,
            events=request.output_tokens,
            tokens_source=TokensSource.USAGE,
            finish_reason="length" if request.output_tokens == declared else "stop",
            warmup=request.intended_s < self.plan.warmup_s,
            conversation=request.conversation,
            turn=request.turn,
            slice=request.slice,
            cached_tokens=sequence.cached_tokens or 0,
            truth=Truth(sent_s, first, first, last, engine),
        )

    def _left(self, served: Served) -> RequestRecord:
        request = served.request
        stopped = self._stopping()
        outcome = Outcome.CANCELLED if stopped else Outcome.INCOMPLETE
        return RequestRecord(
            id=request.id,
            scenario=request.scenario,
            tenant=request.tenant,
            stage=request.stage,
            intended_s=request.intended_s,
            sent_s=served.sent_s,
            end_s=max(self.now, request.intended_s) if stopped else self.until,
            outcome=outcome,
            error=outcome.value,
            asked_input_tokens=request.input_tokens,
            asked_output_tokens=request.max_output_tokens or request.output_tokens,
            warmup=request.intended_s < self.plan.warmup_s,
            conversation=request.conversation,
            turn=request.turn,
            slice=request.slice,
        )
