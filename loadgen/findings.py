"""All that can be wrong with an endpoint, in one table: code, cause, remedy, exit code.

`loadstone run --check` and the start of every run speak from it, and the documentation
prints it. A code never changes its meaning; scripts rely on `error.code`.
"""

from dataclasses import dataclass
from typing import Final

from loadstone.errors import ExitCode, LoadstoneError, UsageError


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong: its stable code, why that comes about, and what to do.

    `exit_code` is that of a check whose worst finding this is: 2 for what was given
    wrong on the command line, 1 for what the other side does, 0 for what a run can
    live with and says in its figures.
    """

    code: str
    cause: str
    remedy: str
    exit_code: ExitCode = ExitCode.FAILED


_USAGE: Final = ExitCode.USAGE
_NOTED: Final = ExitCode.DONE

FINDINGS: Final = {
    finding.code: finding
    for finding in (
        Finding("dns", "no name server knows the host",
                "check the host name in --host; inside a cluster or a private network"
                " the name may be known there only", _USAGE),
        Finding("connect_refused", "the host answers, and nothing listens on that port",
                "start the server (the mock: `loadstone serve`), or check the port"
                " in --host"),
        Finding("timeout_connect", "no answer to a connection: a firewall drops it, or"
                " the address leads nowhere",
                "check the network, VPN and firewall; a proxy is given by --proxy"),
        Finding("unreachable", "the network knows no way to the host",
                "check the network and --host"),
        Finding("proxy", "the proxy makes no connection for us",
                "check --proxy; user and password come from the environment,"
                " --proxy env"),
        Finding("tls_expired", "the server's certificate has expired, or this machine's"
                " clock is wrong",
                "renew the certificate on the server; check `date` here"),
        Finding("tls_not_yet_valid", "the server's certificate is not valid yet, or"
                " this machine's clock is behind", "check `date` here"),
        Finding("tls_untrusted", "nobody this machine trusts has signed the server's"
                " certificate: it is self-signed, or of a private authority",
                "name the authority that signed its certificate with --ca-file"),
        Finding("tls_wrong_host", "the certificate is for another name than --host has",
                "use the name that the certificate has, or have one made for this"
                " name", _USAGE),
        Finding("tls", "the TLS handshake failed",
                "name the authority that signed its certificate with --ca-file, and"
                " check that the server speaks TLS 1.2 or newer"),
        Finding("https_to_http", "the server speaks plain http where https was asked",
                "write http:// in --host", _USAGE),
        Finding("http_to_https", "the server wants TLS and was spoken to in plain http",
                "write https:// in --host", _USAGE),
        Finding("auth_missing", "the endpoint wants a key and none was given",
                "give it by --api-key-env VAR, --api-key-file FILE or --api-key-cmd"
                " COMMAND", _USAGE),
        Finding("auth", "the endpoint refuses the key",
                "check that the key is the right one, has not expired, and goes in the"
                " right header: --auth bearer, api-key or entra", _USAGE),
        Finding("forbidden", "the key is known and may not do this",
                "give the key's owner access to this model or deployment", _USAGE),
        Finding("key_command", "the command that should print the key failed",
                "run it by itself; it must print the key alone, or JSON with `token`",
                _USAGE),
        Finding("model_unknown", "the endpoint does not serve that model",
                "choose one of its models by --model", _USAGE),
        Finding("path_unknown", "there is no such API at that URL",
                "check the path in --host (with or without /v1), --api, and for Azure"
                " --azure-deployment", _USAGE),
        Finding("redirected", "the URL leads elsewhere",
                "give --host the URL that it leads to", _USAGE),
        Finding("request_refused", "the endpoint refuses the request",
                "see what it says; the lengths may be beyond the model's context"),
        Finding("throttled", "the endpoint is at its limit for this key (429) and says"
                " when to come back",
                "wait as long as it says, ask for more quota, or lower --rate"),
        Finding("throttled_no_hint", "the endpoint is at its limit for this key (429)"
                " and does not say when to come back",
                "wait a minute and try again; ask for more quota, or lower --rate"),
        Finding("server_error", "the server failed on the request",
                "look into the server's log; a model may still be loading"),
        Finding("no_answer", "the connection was made and no answer came in time",
                "the model may be loading or the queue long; try again, or raise"
                " --first-byte-timeout"),
        Finding("closed", "the connection was closed before there was an answer",
                "look into the server's log, and whether a proxy stands between"),
        Finding("bad_response", "what came back is not an answer of this API",
                "check the path in --host and --api"),
        Finding("empty_answer", "the answer is well formed and holds no token",
                "check --model and --api; look into the server's log"),
        Finding("stream_error", "the server broke its own answer off with an error",
                "look into the server's log"),
        Finding("not_streaming", "the answer came in one piece though a stream was"
                " asked for: there is no time to first token",
                "switch streaming on at the server or the gateway before it"),
        Finding("buffered", "all events of the stream came at once at its end: a proxy"
                " on the way buffers, and a time to first token would be its own",
                "switch buffering off (nginx: `proxy_buffering off`), or go around"
                " the proxy"),
        Finding("no_usage", "the answer does not say how many tokens it has; events"
                " are counted instead, which is wrong where one carries several",
                "have the server send usage (`stream_options.include_usage`)"),
        Finding("length_ignored", "the answer is longer than max_tokens allows",
                "check what the gateway does with max_tokens; a run would measure"
                " other lengths than it plans"),
        Finding("length_not_held", "the answer ended before max_tokens: the endpoint"
                " does not hold ignore_eos or min_tokens",
                "expect shorter answers than planned, or give --ignore-eos false; the"
                " rows have the true lengths", _NOTED),
        Finding("field_refused", "the endpoint refuses a field that not every service"
                " knows; requests leave it out",
                "nothing to do: the summary says what was left out", _NOTED),
        Finding("clock_skew", "the server's clock and ours differ",
                "set both by NTP; the run's own figures use one clock and are right",
                _NOTED),
    )
}  # fmt: skip
"""Every finding by its code."""


def fault(code: str, found: str, *, hint: str = "") -> LoadstoneError:
    """Return the error of a finding: what was found, why, and what to do."""
    finding = FINDINGS[code]
    kind = UsageError if finding.exit_code is ExitCode.USAGE else LoadstoneError
    return kind(f"{found}: {finding.cause}", hint=hint or finding.remedy, code=code)


def table() -> str:
    """Return all findings as a Markdown table, as the documentation has it."""
    head = "| `error.code` | exit | cause | remedy |\n|---|---|---|---|\n"
    return head + "".join(
        f"| `{f.code}` | {int(f.exit_code)} | {f.cause} | {f.remedy} |\n"
        for f in FINDINGS.values()
    )
