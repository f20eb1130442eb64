"""The fault matrix: what is done to loadstone, what must hold, which test proves it.

`docs/reliability.md` is made of it (`python tests/reliability.py --write`), and
`tests/faults/test_matrix.py` holds both to the tests.
"""

from dataclasses import dataclass
from typing import Final

SERVERS: Final = "faults/test_servers.py::"
MACHINE: Final = "faults/test_machine.py::"
LIFE: Final = "mock_server/test_lifecycle.py::"
CREW: Final = "e2e/test_distributed.py::"
TROUBLE: Final = "e2e/test_trouble.py::"
OTEL: Final = "telemetry/test_otel_collectors.py::"
WATCHERS: Final = "faults/test_watchers.py::"


@dataclass(frozen=True, slots=True)
class Row:
    """One fault; `tests` are node ids below `tests/`.

    `back` is a bound that the test asserts on any machine; `needs` is what a machine
    must allow, without which the test is skipped and says so.
    """

    id: str
    fault: str
    happens: str
    lost: str
    back: str
    tests: tuple[str, ...]
    needs: str = ""
    measured: str = ""


NOTHING: Final = "nothing"
NAMESPACES: Final = "root, iproute2, `nsenter`, `/dev/net/tun`"
COMPILER: Final = "a C compiler"

MATRIX: Final[dict[str, tuple[Row, ...]]] = {
    "Servers": (
        Row("server-killed", "the server is killed (SIGKILL) in mid-run and restarted",
            "each open stream fails as `closed_early` or `reset`, each request while"
            " nobody listens as `connect_refused`; the run goes on, and says from when"
            " to when", "the answers of the gap, each with a row",
            "a request due 1 s after it listens again is answered",
            (SERVERS + "test_a_server_ends_and_comes_back",),
            measured="listening again after 0.4 to 2.0 s, and the last failure as"
            " long after the first"),
        Row("server-stopped", "the server is told to end (SIGTERM) and restarted",
            "running answers get its grace, new requests 503 (`http_503`); then as"
            " above", "the answers that outlast the grace, and those refused",
            "a request due 1 s after it listens again is answered",
            (SERVERS + "test_a_server_ends_and_comes_back",
             LIFE + "test_while_answers_end_new_requests_are_refused",
             "e2e/test_workers.py::test_a_signal_drains_all_workers"),
            measured="grace of 1 s: last failure 0.9 to 3.5 s after the first"),
        Row("mock-worker-killed", "a worker of `serve --workers` is killed",
            "its streams break off, the other workers' do not; the supervisor starts"
            " it again on its port", "its running answers", "10 s",
            ("e2e/test_workers.py::test_a_worker_killed_under_load",)),
        Row("supervisor-killed", "the supervisor of `serve --workers` is killed",
            "no worker outlives it", "running answers", "does not come back by itself",
            ("e2e/test_workers.py::test_no_worker_outlives_its_supervisor",)),
        Row("vm-lost", "an emulated VM is lost with its KV",
            "its requests are retried, fail or migrate, as asked",
            "what the fault's `requests` says", "when the fault ends",
            ("mock_server/test_outages.py::test_a_lost_vm",
             "mock_server/test_outages.py::test_when_all_are_lost")),
        Row("trickle", "a server sends a byte every tenth of a second",
            "`timeout_total` ends it", "that answer", "1 s after --total-timeout",
            (SERVERS + "test_a_wait_has_a_limit_and_a_name",
             SERVERS + "test_who_is_answered_well_beside_them_is_not_harmed",
             "loadgen/test_hostile.py::test_a_trickle_is_not_patience_for_ever")),
        Row("half-open", "a server takes the request and says nothing, or falls silent",
            "`timeout_first_byte`, or `timeout_idle`, ends it", "that answer",
            "1 s after that timeout",
            (SERVERS + "test_a_wait_has_a_limit_and_a_name",)),
        Row("reset", "a server resets a stream in the middle",
            "`reset`; beside it others are answered", "that answer", "1 s",
            (SERVERS + "test_a_wait_has_a_limit_and_a_name",
             "mock_server/test_wire_faults.py::test_reset",
             "loadgen/test_reconnect.py::test_a_request_that_met_a_close_is_sent_again")),
        Row("storm", "a storm of 429 with `Retry-After`, under `--on-429 retry`",
            "requests come back when they were told to: two retries each at most,"
            " on average",
            NOTHING, "two waits as long as the server said, on average",
            (SERVERS + "test_a_storm_of_429_with_retry_after",
             "mock_server/test_overload.py::test_overload_is_shed")),
        Row("storm-mute", "a storm of 429 that does not say for how long",
            "tries are spread by doubling waits with chance in them; who gives up is"
            " `throttled`, and the terminal says that no hint was given",
            "what was refused more often than --max-retries", "8 s",
            (SERVERS + "test_a_storm_of_429_that_says_nothing",)),
        Row("slow-reader", "a client of the mock does not read",
            "it is cut off, the others are served", "its own answer", "-",
            (LIFE + "test_a_slow_reader_is_cut",)),
    ),
    "Load generator": (
        Row("worker-killed", "one of several load workers is killed",
            "the others go on and the run ends by itself: `rate_not_delivered`",
            "its share from then on; what was in flight is `unknown`",
            "its places are nobody's until the next run",
            (TROUBLE + "test_a_lost_worker_ends_in_a_verdict_and_no_wait",
             CREW + "test_a_worker_that_returns_has_no_share_and_the_run_ends")),
        Row("master-killed", "the master is killed",
            "workers close their shares and end; `loadstone report` makes the rest",
            NOTHING + " that was sent", "30 s; a run ends",
            (CREW + "test_without_their_master_workers_end_and_leave_whole_rows",),
            measured="10.3 and 10.5 s from the kill to the end of all"),
        Row("run-killed", "the one process of a run is killed",
            "exit code 1; `loadstone report` and `audit` work on what is there",
            "rows of a second, as they are flushed once in one, and what was in flight;"
            " they are counted as `unknown`", "the run has ended",
            (TROUBLE + "test_a_killed_run_says_where_its_rows_are",)),
        Row("client-frozen", "the client is stopped for a while (SIGSTOP)",
            "never `ok`: the verdict says `client_limited`", NOTHING,
            "by the end of the run",
            ("e2e/test_instrument.py::test_a_frozen_client_is_never_ok",)),
        Row("terminal-frozen", "whoever shows the run is suspended",
            "the run goes on and ends", NOTHING, "-",
            (TROUBLE + "test_a_terminal_that_stops_reading_does_not_stop_the_run",)),
    ),
    "Collectors and Prometheus": (
        Row("collector-away", "the OTLP collector is not there",
            "one line in the log; run and mock go on", "spans and points",
            "-", (OTEL + "test_a_dead_collector_costs_one_line",
                  OTEL + "test_a_mock_without_its_collector_serves_and_stops")),
        Row("collector-hangs", "the collector takes connections and says nothing",
            "the loop is on time; the end waits for 5 s at most", "spans and"
            " points", "-",
            (OTEL + "test_a_collector_that_never_answers_stalls_nothing",)),
        Row("collector-back", "the collector comes back in mid-run",
            "its counts are of the whole run: they are cumulative",
            "no count; spans of the time before", "by the end of the run",
            (WATCHERS + "test_a_collector_comes_back",)),
        Row("scrape-hangs", "Prometheus asks for metrics and does not read them",
            "neither client nor mock is held (a page takes the client some ms to"
            " make): its loop lags by less than 0.25 s at p99", "that scrape",
            "-",
            (WATCHERS + "test_scrapes_that_hang",)),
        Row("page-hangs", "the server's own metrics page (--server-metrics) hangs",
            "the run goes on; the scrapes say `timeout_first_byte`", "those scrapes",
            "-", (WATCHERS + "test_a_page_of_server_metrics_that_hangs",
                                "loadgen/test_scrape.py::test_pages_that_fail_and_keys_for_others")),
    ),
    "This machine": (
        Row("disk-full", "the disk takes no more in mid-run",
            "the run ends with exit code 1, the reason and what to do",
            "rows that were not flushed; they are counted as `unknown` or `dropped`",
            "it ends more than 15 s before its time",
            (MACHINE + "test_a_disk_that_takes_no_more",
             TROUBLE + "test_a_full_disk_is_named"),
            needs="root, for the second of them",
            measured="5.9 to 7.9 s from the command to its end"),
        Row("disk-read-only", "the run folder's disk is read-only",
            "exit code 1 before any request of the plan is sent", NOTHING, "-",
            (MACHINE + "test_a_disk_that_may_not_be_written",),
            needs="mount namespaces"),
        Row("disk-turns-read-only", "the disk turns read-only in mid-run, as ext4 does"
            " after an error",
            "the run ends with exit code 1, the reason and what to do",
            "rows that were not flushed; they are counted as `unknown` or `dropped`",
            "30 s, of 45 s that were asked",
            (MACHINE + "test_a_disk_that_turns_read_only",),
            needs="root, `mkfs.ext4`, a loop device",
            measured="0.6 to 0.8 s from then to its end"),
        Row("clock-ahead", "the time of day of a worker's host is an hour ahead",
            "the offset is measured before the start and taken off: it begins with the"
            " others, and its rows have the master's times", NOTHING,
            "-",
            (CREW
             + "test_a_worker_whose_clock_is_an_hour_ahead_sends_with_the_others",),
            needs=COMPILER),
        Row("clock-set", "the time of day goes an hour on and two back, for all",
            "durations, deadlines, budget and scrapes go by the monotonic clock;"
            " receive lags that span it are dropped and counted", "those lags",
            "the next request",
            (MACHINE + "test_the_wall_clock_is_set_in_mid_run",
             MACHINE + "test_a_stopped_run_whose_clock_was_set_owes_what_was_due",
             "loadgen/test_receive.py::test_a_clock_that_is_set_voids_the_lags"),
            needs=COMPILER),
        Row("descriptors-client", "the client runs out of descriptors",
            "`out_of_files`, by name; the others are answered",
            "requests that had none, each with a row; the verdict is `client_limited`",
            "as soon as others give theirs back",
            (MACHINE + "test_descriptors_run_out",)),
        Row("descriptors-mock", "the mock runs out of descriptors",
            "who comes too many is refused at once, others are served, and one line"
            " says it; with `--expect-connections` it does not start", "those"
            " connections", "5 s; whoever comes once others have gone is answered",
            (MACHINE + "test_the_mock_has_no_descriptors_left",
             LIFE + "test_connections_that_cannot_be_had_are_refused")),
    ),
    "Network": (
        Row("wire-bad", "two hosts, 40 ms apart, 1 % of packets lost, and nothing"
            " arrives for a second", "TCP sends again; answers are late and whole",
            NOTHING, "by the end of the run",
            (MACHINE + "test_a_network_that_delays_loses_and_breaks",),
            needs=NAMESPACES,
            measured="the last slow answer 3.4 to 5.4 s into a run of 4 s"),
        Row("wire-reorders", "two hosts: a fifth of the packets is overtaken, a tenth"
            " arrives twice", "TCP puts it in order; no answer has a token too few or"
            " too many", NOTHING, "each answer within 10 s of its arrival",
            (MACHINE + "test_a_network_that_reorders_and_doubles",),
            needs=NAMESPACES, measured="the slowest answer 0.5 s"),
        Row("peer-vanished", "a host vanishes for good in mid-run",
            "streams end by `timeout_idle` or `timeout_first_byte`, new connections by"
            " `timeout_connect`", "every answer from then on, each with a row",
            "each within 3 s at limits of 1 s; the run ends",
            (MACHINE + "test_a_peer_vanishes",), needs=NAMESPACES,
            measured="a run with 2 s left ended 4.0 to 5.9 s after the cut"),
    ),
}  # fmt: skip
"""By part; in the order of the document."""
