"""What a report needs a run's files to be: a broken one is told, not half shown.

Only what is read is named; more may be there, and what an older run has not is None.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ..errors import UsageError
from ..runs import PLAN, SUMMARY, RunFiles


class _Latency(msgspec.Struct):
    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    n: int


class _Slo(msgspec.Struct):
    metric: str
    stat: str
    max_s: float
    value_s: float | None
    met: bool | None


class _Energy(msgspec.Struct):
    joules_per_output_token: float | None = None
    gco2_per_output_token: float | None = None


class _Allocation(msgspec.Struct):
    answered_usd: float | None = None
    failed_usd: float | None = None
    idle_usd: float | None = None


class _Cost(msgspec.Struct):
    usd_total: float | None = None
    usd_per_hour: float | None = None
    usd_per_request: float | None = None
    usd_per_good_request: float | None = None
    usd_per_million_output_tokens: float | None = None
    usd_per_million_tokens: float | None = None
    window_s: float | None = None
    parts: dict[str, float | None] = {}
    allocation: _Allocation | None = None
    energy: _Energy | None = None
    assumptions: list[str] = []


class _Instrument(msgspec.Struct):
    verdict: str = ""
    reasons: list[str] = []
    notes: list[str] = []
    scheduled: int | None = None
    ttft_error_s: _Latency | None = None
    loop_lag_s: _Latency | None = None
    recv_lag_s: _Latency | None = None
    workers: dict[str, int] | None = None
    virtual: bool = False


class _Throughput(msgspec.Struct):
    output_tok_s: float | None
    steady_output_tok_s: float | None
    total_tok_s: float | None
    req_s: float | None
    goodput_req_s: float | None


class _Requests(msgspec.Struct):
    sent: int
    ok: int
    cancelled: int


class _Tokens(msgspec.Struct):
    input: int
    output: int


class _Part(msgspec.Struct):
    """One line of the table of slices."""

    scenario: str
    tenant: str
    stage: str
    requests: dict[str, int]
    output_tokens: int
    ttft_s: _Latency
    e2e_s: _Latency


class _Window(msgspec.Struct):
    start_s: float | None = None
    end_s: float | None = None
    reason: str | None = None


class _Summary(msgspec.Struct):
    requests: _Requests
    tokens: _Tokens
    makespan_s: float
    throughput: _Throughput
    ttft_s: _Latency
    ttft_intended_s: _Latency
    tpot_s: _Latency
    icl_s: _Latency
    e2e_s: _Latency
    response_time_s: _Latency
    send_lag_s: _Latency
    slo: list[_Slo]
    errors: dict[str, int]
    complete: bool
    run: str | None = None
    scenario: str | None = None
    model: str | None = None
    host: str | None = None
    plan_hash: str | None = None
    cost: _Cost | None = None
    instrument: _Instrument | None = None
    streams: dict[str, int] | None = None
    window: _Window | None = None
    slices: list[_Part] | None = None


class _Step(msgspec.Struct):
    load: str
    folder: str
    trusted: bool
    grows: bool
    gpus: float | None
    output_tok_s: float | None
    tok_s_per_gpu: float | None
    tok_s_per_user: float | None


class _Knee(msgspec.Struct):
    load: str


class Sweep(msgspec.Struct):
    """`sweep.json`."""

    steps: list[_Step]
    knee: _Knee | None
    notes: list[str]


class _Settings(msgspec.Struct):
    duration_s: float = 0.0
    warmup_s: float = 0.0
    users: int = 0
    speedup: float = 1.0
    rate: float | None = None
    offline: int | None = None
    trace: str | None = None
    ignore_eos: bool = True


class _Plan(msgspec.Struct):
    plan: _Settings
    plan_hash: str


def hold(
    run: RunFiles, plan: Mapping[str, Any], summary: Mapping[str, Any] | None
) -> None:
    """Raise `UsageError`, naming file and key, if a file is not what a run writes."""
    fit(run.path / PLAN, plan, _Plan)
    if summary is not None:
        fit(run.path / SUMMARY, summary, _Summary)


def fit(path: Path, content: Mapping[str, Any], shape: type) -> None:
    """Raise `UsageError`, naming file and key, for what has another shape."""
    try:
        msgspec.convert(content, shape)
    except msgspec.ValidationError as wrong:
        raise UsageError(
            f"{path} is not what a run of loadstone writes: {wrong}"
        ) from None
