"""What the load generator says of itself, and how it reaches an endpoint."""

import ipaddress
import json
import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from processes import command_of, descendants, latest, loadstone, mock_server, start
from sessions import truth_server

LIMIT_S = 0.005


def ttft_error_p99(rows: list[dict[str, Any]]) -> float:
    """Compute the TTFT error against the mock's truth straight from the rows."""
    errors = sorted(
        abs(
            (r["first_s"] - r["sent_s"])
            - (r["truth"]["first_sent_s"] - r["truth"]["received_s"])
        )
        for r in rows
        if r["outcome"] == "ok"
    )
    return errors[ceil(0.99 * len(errors)) - 1]


def test_a_hundred_streams_are_read_right_or_not_stamped_ok(tmp_path: Path) -> None:
    """Where the TTFT error exceeds 5 ms at p99, verdict and exit code say so."""
    with mock_server() as url:
        done = loadstone(
            "run",
            "azure-chat",
            "--users",
            "100",
            "--duration",
            "8s",
            "--host",
            url,
            "--json",
            "--out",
            str(tmp_path),
        )
    run = latest(tmp_path)
    instrument = json.loads(done.stdout)["instrument"]
    error = ttft_error_p99(run.rows)
    assert len(run.rows) >= 100
    assert abs(instrument["ttft_error_s"]["p99"] - error) < 1e-5
    if error > LIMIT_S:
        assert instrument["verdict"] == "client_limited"
    assert (done.returncode == 0) == (instrument["verdict"] == "ok")


def test_a_frozen_client_is_never_ok(tmp_path: Path) -> None:
    """A client that was stopped for a second read its answers late, and says so."""
    with mock_server() as url:
        process = start(
            "run",
            "azure-chat",
            "--rate",
            "40",
            "--duration",
            "5s",
            "--host",
            url,
            "--out",
            str(tmp_path),
        )
        rows = tmp_path / "latest" / "requests.jsonl"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if rows.exists() and rows.stat().st_size:
                break
            time.sleep(0.05)
        (client,) = (p for p in descendants(process.pid) if "locust" in command_of(p))
        os.kill(client, signal.SIGSTOP)
        time.sleep(1.0)  # the fault itself: how long it lasts
        os.kill(client, signal.SIGCONT)
        output, _ = process.communicate(timeout=90)
    run = latest(tmp_path)
    assert ttft_error_p99(run.rows) > LIMIT_S
    assert run.summary["instrument"]["verdict"] == "client_limited"
    requests = run.summary["requests"]
    scheduled = run.summary["instrument"]["scheduled"]
    assert requests["ok"] == requests["sent"] == scheduled
    assert process.returncode == 4
    assert "client_limited" in output


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loadstone test")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    cert_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_path, key_path


def test_streams_are_read_over_tls_with_a_key(tmp_path: Path) -> None:
    """A private authority and a bearer key: all ok, the key is written nowhere."""
    cert, key = certificate(tmp_path)
    secret = "sk-loadstone-7a1c9e"
    (tmp_path / "key.txt").write_text(secret + "\n")
    out = tmp_path / "runs"
    with mock_server(
        "--ssl-certfile",
        str(cert),
        "--ssl-keyfile",
        str(key),
        "--api-key-file",
        str(tmp_path / "key.txt"),
    ) as url:
        assert url.startswith("https://")
        common = [
            "run",
            "azure-chat",
            "--rate",
            "10",
            "--duration",
            "2s",
            "--host",
            url,
        ]
        common += ["--out", str(out)]
        untrusted = loadstone(*common)
        keyless = loadstone(*common, "--ca-file", str(cert))
        done = loadstone(
            *common,
            "--ca-file",
            str(cert),
            "--api-key-env",
            "MOCK_KEY",
            env={**os.environ, "MOCK_KEY": secret},
        )
    assert untrusted.returncode == 1
    assert "certificate" in untrusted.stderr
    assert "--ca-file" in untrusted.stderr
    assert keyless.returncode == 1
    assert "wants a key and none was given" in keyless.stderr
    assert "--api-key" in keyless.stderr
    run = latest(out)
    requests = run.summary["requests"]
    assert requests["ok"] == requests["sent"] > 5
    asked = sum(r["asked_output_tokens"] for r in run.rows)
    assert run.summary["tokens"]["output"] == asked
    written = b"".join(p.read_bytes() for p in out.rglob("*") if p.is_file())
    assert secret.encode() not in written
    assert secret not in done.stdout + done.stderr


def test_a_unix_socket_is_a_host(tmp_path: Path) -> None:
    """What cannot be measured there is absent, and said to be."""
    uds = ("--uds", str(tmp_path / "s"))
    with truth_server(*uds, ttft=0.01, gap=0.001) as server:
        common = ["run", "azure-chat", "--rate", "20", "--duration", "1s"]
        common += ["--host", server.url, "--out", str(tmp_path / "runs")]
        done = loadstone(*common, "--json")
        assert done.returncode in (0, 4), done.stderr
        summary = json.loads(done.stdout)
        # With a deadline that no answer can keep, each ends by it.
        impatient = loadstone(*common, "--json", "--total-timeout", "5ms")
    assert summary["host"] == server.url
    assert summary["requests"]["ok"] == summary["requests"]["sent"] > 5
    instrument = summary["instrument"]
    assert (instrument["recv_lag_s"]["n"], instrument["recv_lag_s"]["p99"]) == (0, None)
    assert "Unix" in instrument["recv_lag_absent"]
    assert summary["ttfo_s"] == summary["ttft_s"]
    failed = json.loads(impatient.stdout)
    assert failed["requests"]["failed"] == failed["requests"]["sent"] > 5
    assert set(failed["errors"]) == {"timeout_total"}
    assert impatient.returncode == 4


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has receive stamps")
def test_kernel_lag_and_shares_are_in_summary_and_rows(tmp_path: Path) -> None:
    """Over TCP every answer's first token has its lag, and the run its figures."""
    with truth_server(ttft=0.01, gap=0.001) as server:
        done = loadstone(
            "run", "azure-chat", "--rate", "20", "--duration", "2s", "--json",
            "--host", server.url, "--out", str(tmp_path),
        )  # fmt: skip
    instrument = json.loads(done.stdout)["instrument"]
    assert instrument["recv_lag_absent"] is None
    assert instrument["recv_lag_s"]["n"] > instrument["scheduled"]
    assert instrument["recv_lag_dropped"] == 0
    lags = [row["recv_lag_s"] for row in latest(tmp_path).rows if "recv_lag_s" in row]
    assert len(lags) >= instrument["scheduled"] / 2
    worst = [r["worst_recv_lag_s"] for r in latest(tmp_path).rows if "recv_lag_s" in r]
    assert all(0 <= lag <= top for lag, top in zip(lags, worst, strict=True))
    for name in ("cpu_share", "gc_share", "disk_share"):
        assert 0 <= instrument[name] <= 2
    over = instrument["recv_lag_s"]["p99"] > LIMIT_S
    said = any("in the client's kernel" in reason for reason in instrument["reasons"])
    assert over == said


def test_nobody_there_is_told_at_once(tmp_path: Path) -> None:
    """A refused connection is code 1, in words and JSON, and leaves no run folder."""
    done = loadstone(
        "run",
        "azure-chat",
        "--rate",
        "5",
        "--host",
        "http://127.0.0.1:9",
        "--json",
        "--out",
        str(tmp_path / "runs"),
    )
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "connect_refused"
    assert "127.0.0.1:9" in error["message"]
    assert "loadstone serve" in error["hint"]
    assert not (tmp_path / "runs").exists()


def test_wrong_usage_is_exit_code_2() -> None:
    """An option that cannot be is named before anything starts."""
    for args, word in (
        (("--rate", "0"), "rate"),
        (("--rate", "ten"), "--rate"),
        (("--duration", "5 parsecs", "--rate", "1"), "--duration"),
        ((), "--users"),
        (("--rate", "1", "--trace", "x.csv"), "--trace"),
        (("--trace", "no-such-file.csv"), "no-such-file.csv"),
    ):
        done = loadstone("run", "azure-chat", "--host", "http://127.0.0.1:9", *args)
        assert (done.returncode, word in done.stderr) == (2, True), done.stderr


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """`serve` on a taken port fails with the port and what to do."""
    with mock_server() as url:
        port = url.rsplit(":", 1)[1]
        process = start("serve", "--port", port)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f":{port} is already in use" in said
    assert "--port" in said
