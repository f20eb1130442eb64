"""Options in sections: a verb with eighty of them is read by what one wants to do."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import click

SECTIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({
    "What arrives": (
        "rate", "scenario", "users", "offline", "duration", "recipe", "think",
        "arrivals", "rate_profile", "warmup", "drain", "window", "seed", "salt",
    ),
    "Recorded traffic": (
        "trace", "trace_from", "trace_to", "trace_sample", "speedup", "skip_bad_rows",
    ),
    "The endpoint": (
        "hosts", "model", "api", "ignore_eos", "continuous_usage", "chars_per_token",
        "on_429", "max_retries", "azure_deployment", "azure_api_version",
        "server_metrics",
    ),
    "Keys and the way there": (
        "api_key_env", "api_key_file", "api_key_cmd", "auth", "entra_scope",
        "b_model", "b_api_key_env", "b_api_key_file", "b_api_key_cmd",
        "ca_file", "proxy", "connect_timeout", "first_byte_timeout", "idle_timeout",
        "total_timeout",
    ),
    "The machine": (
        "preset", "model", "precision", "tensor_parallel_size", "expert_parallel_size",
        "gpu", "engines", "vms", "racks", "vm_spread", "slowdown",
    ),
    "Its engines": (
        "router", "scheduling_policy", "policy", "prefix_caching", "max_num_seqs",
        "max_num_batched_tokens", "max_model_len", "num_speculative_tokens",
        "speculative_acceptance", "prefill_gpus", "decode_gpus", "max_waiting",
    ),
    "The server": (
        "port", "host", "uds", "workers", "stream_interval", "names", "api_key_file",
        "ssl_certfile", "ssl_keyfile", "tenants", "allowed_origins",
        "expect_connections", "slow_reader_limit", "grace",
    ),
    "What goes wrong": ("faults", "allow_fault_header", "admin_key_file"),
    "Retrieval": (
        "store", "questions", "passages", "embeddings_host", "embeddings_model",
    ),
    "Limits and objectives": (
        "slo", "prices", "vms", "max_usd", "max_requests", "max_tokens",
    ),
    "Search and sweep": (
        "find_max", "sweep", "tolerance", "confidence", "repeats", "min_rate",
        "max_rate", "start_rate", "max_probes", "gpus", "resume",
    ),
})  # fmt: skip
"""Headings, and the parameters below each, in the order in which they are read.

A verb has those sections whose first parameter it has: a model is asked of an endpoint
under `run`, and is what a machine serves under `serve`. A parameter stands once, in the
first section that is there.
"""


class Sectioned(click.Command):
    """A verb whose `--help` has its options in sections, what is of none at the end."""

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the options, section by section."""
        for heading, records in self._sections(ctx):
            with formatter.section(heading):
                formatter.write_dl(records)

    def _sections(
        self, ctx: click.Context
    ) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        left = {
            parameter.name or "": record
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option)
            and (record := parameter.get_help_record(ctx)) is not None
        }
        for heading, names in SECTIONS.items():
            if names[0] in left:
                yield heading, [left.pop(name) for name in names if name in left]
        yield "Everything else", [*left.values()]
