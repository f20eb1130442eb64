"""Published points as runs of an engine: who ran what, how laid out, how limited.

A row that leaves its settings out borrows those of the row that shares most with it
(model and precision always; then family, scenario, accelerator, size of the scale-up
domain, stack), and falls back to the defaults below. Rows that the model does not cover
are refused with the reason, never fitted.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ..catalog.gpus import load_accelerator
from ..catalog.models import load_architecture, model_name
from ..catalog.placement import ROOMY
from ..catalog.points import PublishedPoint
from ..errors import CatalogError, NotModelledError
from ..physics.accelerator import Accelerator
from ..physics.architecture import WEIGHT_BYTES, Architecture
from ..physics.derive import Layout, cache_precision
from ..units import MS, Seconds
from .settings import Settings, borrowed, read_settings
from .workloads import Lengths, lengths_of

_DEFAULTS: Final = Settings(pipeline=1, batch=2048, budget=8192, fraction=0.95)
"""Where nobody states it; a tensor-parallel group is the smallest power of two whose
memory the weights fill at most to `ROOMY`."""
_MOSTLY_WEIGHTS: Final = 0.75
"""A lent layout whose memory the weights would fill further than this is refused."""
_TABLE_REQUESTS: Final = 3000
_ACTIVATION_BYTES: Final = 6e9
"""Of one GPU: no published figure."""
_FINE_EXPERTS: Final = 32
"""Mixtures of so many experts run in TensorRT-LLM's PyTorch backend, not its engine."""
_OTHER_BOARD: Final = re.compile(r"H200[-_]NVL")
"""A PCIe board with another power limit and other links than the catalog's H200."""
_POWER_CAP: Final = re.compile(r"\bpower capped at (\d+) W")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One published point as an engine: facts, layout, limits, lengths, figures."""

    point: PublishedPoint
    gpu: Accelerator
    model: Architecture
    layout: Layout
    pipeline: int
    batch: int
    """Most sequences, of a GPU under data-parallel attention, else of a group."""
    budget: int
    fraction: float
    requests: int
    lengths: Lengths
    stack: str
    """The software's generation: points of one generation share one factor."""
    round: str
    """MLPerf's, or empty."""

    @property
    def ranks(self) -> int:
        """Limits hold for each of so many parts of an engine."""
        if self.layout.data_parallel_attention:
            return self.layout.tensor_parallel
        return 1

    @property
    def decode_s(self) -> Seconds | None:
        """Measured time of an output token, weighted by tokens; None without latency.

        Not the mean TPOT, which weighs by requests: with outputs from 200 to 20,000
        tokens the two differ by up to 20 %.
        """
        p = self.point
        if p.e2e_mean_ms is None or p.ttft_mean_ms is None:
            return None
        return (p.e2e_mean_ms - p.ttft_mean_ms) * MS / (self.lengths.output - 1)

    @property
    def throughput(self) -> bool:
        """Whether the run is judged by tokens/s."""
        return self.point.scenario in ("offline", "throughput")

    @property
    def most_sequences(self) -> float:
        """Sequences that fit into one engine: by batch, token budget, memory."""
        sequence = self.lengths.context + self._fixed / self._kept
        tokens = self.ranks * self.budget / (1 + self.lengths.prompts_per_output)
        memory = self.cache_tokens / sequence
        return max(1.0, min(self.ranks * self.batch, tokens, memory))

    @property
    def cache_tokens(self) -> float:
        """Tokens of context that fit into the memory of one engine.

        Of one pipeline stage: stages share the layers, and serve batches of their own.
        """
        gpus, model = self.layout.tensor_parallel, self.model
        weights = model.weight_bytes(self.layout.precision)
        copies = (self.ranks - 1) * self._dense_bytes
        room = self.pipeline * gpus * (self.gpu.hbm_bytes - _ACTIVATION_BYTES)
        free = self.fraction * (room - weights - copies)
        return max(0.0, free / self._kept / self.pipeline)

    @property
    def _kept(self) -> float:
        """Bytes of a token in the cache; latent attention has a copy on each GPU."""
        split = self.model.latent is None or self.layout.data_parallel_attention
        copies = 1 if split else self.layout.tensor_parallel
        return copies * self.model.kv_bytes_per_token(self.layout.cache)

    @property
    def _fixed(self) -> float:
        return self.model.kv_fixed_bytes_per_sequence(self.layout.cache)

    @property
    def _dense_bytes(self) -> float:
        experts, _ = self.model.precisions(self.layout.precision)
        weights = self.model.weight_bytes(self.layout.precision)
        return weights - self.model.params_experts * WEIGHT_BYTES[experts]


def refusal(point: PublishedPoint) -> str | None:
    """Say why a point is outside of what is modelled; None if it is inside."""
    settings = read_settings(point.engine_settings)
    latency = (point.e2e_mean_ms, point.ttft_mean_ms, point.output_tokens_mean)
    loaded = point.scenario in ("server", "interactive")
    refusals = {
        "prefill and decode on different workers": settings.disaggregated,
        "speculative decoding": settings.speculative,
        "speculative decoding, which the 15 ms limit calls for": (
            point.model == "deepseek-r1" and point.scenario == "interactive"
        ),
        "H200 NVL is another board than the catalog's H200": (
            _OTHER_BOARD.search(point.source) is not None
        ),
        "whether its figure counts input tokens is not stated": (
            point.source.startswith("Azure/AI-benchmarking-guide")
        ),
        "no latency published": loaded and None in latency,
    }
    for reason, holds in refusals.items():
        if holds:
            return reason
    try:
        model_name(point.model)
        lengths_of(point)
    except (CatalogError, NotModelledError) as why:
        return why.message
    return None


def runs_of(points: Iterable[PublishedPoint]) -> list[Run]:
    """Return the runs that are modelled, in the points' order."""
    points = list(points)
    stated = [(point, read_settings(point.engine_settings)) for point in points]
    return [
        _run(point, settings, stated)
        for point, settings in stated
        if refusal(point) is None
    ]


def _run(
    point: PublishedPoint,
    settings: Settings,
    others: Sequence[tuple[PublishedPoint, Settings]],
) -> Run:
    gpu, model = _board(point), load_architecture(point.model)
    precision = _precision(point, gpu)
    if settings.group is None:
        settings = borrowed(settings, _lender(point, gpu, model, precision, others))
    settings = borrowed(settings, _DEFAULTS)
    spread = settings.data_parallel and model.experts is not None
    return Run(
        point=point,
        gpu=gpu,
        model=model,
        layout=Layout(
            precision=precision,
            cache=cache_precision(gpu, model),
            tensor_parallel=settings.group or _group(gpu, model, precision),
            data_parallel_attention=spread,
            graphs=settings.graphs if settings.graphs is not None else True,
        ),
        pipeline=settings.pipeline or 1,
        batch=settings.batch or 1,
        budget=settings.budget or 1,
        fraction=settings.fraction or 1.0,
        requests=_requests(point),
        lengths=lengths_of(point),
        stack=stack_of(point, gpu, model),
        round=_round(point),
    )


def _board(point: PublishedPoint) -> Accelerator:
    """Return the accelerator of a point, with the power limit that it was run at."""
    gpu = load_accelerator(point.accelerator)
    cap = _POWER_CAP.search(point.note)
    return replace(gpu, power_limit_w=float(cap[1])) if cap else gpu


def _precision(point: PublishedPoint, gpu: Accelerator) -> str:
    stated = {"mxfp4": "fp4"}.get(point.precision, point.precision)
    return stated or ("fp4" if gpu.fp4_dense_tflops else "fp8")


def _group(gpu: Accelerator, model: Architecture, precision: str) -> int:
    group = 1
    while model.weight_bytes(precision) > ROOMY * group * gpu.hbm_bytes:
        group *= 2
    return group


def _requests(point: PublishedPoint) -> int:
    for text in (point.note, point.engine_settings):
        stated = read_settings(text).requests
        if stated:
            return stated
    return _TABLE_REQUESTS


def _lender(
    point: PublishedPoint,
    gpu: Accelerator,
    model: Architecture,
    precision: str,
    others: Sequence[tuple[PublishedPoint, Settings]],
) -> Settings:
    """Return the settings of the row that shares most; the first of equals."""
    best, lent = -1.0, Settings()
    for other, settings in others:
        if not settings.layout_known or other.model != point.model:
            continue
        board = load_accelerator(other.accelerator)
        gpus = (settings.group or 1) * (settings.pipeline or 1)
        full = model.weight_bytes(precision) > _MOSTLY_WEIGHTS * gpus * gpu.hbm_bytes
        same = (
            _precision(other, board) == precision
            and board.family == gpu.family
            and bool(_round(other)) == bool(_round(point))
        )
        if full or not same:
            continue
        shares = (
            4.0 * (other.scenario == point.scenario)
            + 2.0 * (other.accelerator == point.accelerator)
            + 1.5 * (board.domain_gpus == gpu.domain_gpus)
            + 1.0 * (stack_of(other, board, model) == stack_of(point, gpu, model))
        )
        if shares > best:
            best, lent = shares, settings
    return lent


def _round(point: PublishedPoint) -> str:
    found = re.match(r"mlperf-(\d\.\d)-", point.id)
    return found[1] if found else ""


def stack_of(point: PublishedPoint, gpu: Accelerator, model: Architecture) -> str:
    """Return the software generation of a point: product, backend, and how new.

    A stated version of TensorRT or ROCm decides, otherwise MLPerf's round.
    """
    text, round_ = point.engine_settings, _round(point)
    if gpu.family.startswith("cdna"):
        rocm = re.search(r"ROCm (\d)|rocm(\d)", text)
        major = (rocm[1] or rocm[2]) if rocm else ("7" if round_ >= "6.0" else "6")
        return f"rocm-{major}"
    if "vLLM" in text or "LLM-D" in text:
        return "vllm"
    if model.experts is not None and model.experts.count >= _FINE_EXPERTS:
        product = "trtllm-torch"
    else:
        product = "trtllm"
    if not round_ and "TensorRT-LLM" in point.source:
        return f"{product}-table"
    version = re.search(r"TensorRT 10\.(\d+)", text)
    if version:
        return f"{product}-{'6.0' if int(version[1]) >= _TENSORRT_OF_6 else '5.1'}"
    return f"{product}-{'5.1' if not round_ else '5.0' if round_ < '5.1' else round_}"


_TENSORRT_OF_6: Final = 13
"""MLPerf v6.0 submissions state TensorRT 10.13 and later, those of v5.1 up to 10.11."""
