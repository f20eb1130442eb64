"""Secrets planted wherever one may be given: found nowhere that a run leaves or shows.

One run with a key that expires in its middle, against an endpoint that repeats whatever
key it is shown in its errors; everything the run writes, prints, exports and serves is
searched, and so are the command lines of all its processes while they live.
"""

import base64
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import ZipFile

import pytest
from collector import Collector, collecting
from processes import PATIENCE_S, Results, descendants, latest, loadstone, start
from quirks import Quirk, endpoint_with
from traced_runs import environ

FIRST, SECOND = "sk-planted-first-4242", "sk-planted-second-4242"
PROXY_WORD = "planted-proxy-word"
SECRETS = (FIRST, SECOND, PROXY_WORD)
VLLM = "vllm:num_requests_waiting 1\nvllm:kv_cache_usage_perc 0.5\n"
# What prints the first key, then the second: a vault whose tokens are short-lived. It
# is asked when a run is prepared, by who sends, and when a key was refused.
VAULT = """
import os, pathlib, sys
turns = pathlib.Path(sys.argv[1])
turns.open("a").write(".")
asked = len(turns.read_text())
print(os.environ["PLANTED_FIRST" if asked <= 2 else "PLANTED_SECOND"])
"""


@dataclass
class Left:
    """What a run left and showed, by where it was."""

    run: Results
    code: int
    texts: dict[str, str] = field(default_factory=dict)
    quirk: Quirk = field(default_factory=Quirk)


def leaks(texts: dict[str, str]) -> list[tuple[str, str]]:
    """Return where which secret is, plain, in base64 or in parts of a URL."""
    forms = {
        secret: (secret, base64.b64encode(secret.encode()).decode().rstrip("="))
        for secret in SECRETS
    }
    return [
        (where, secret)
        for where, text in texts.items()
        for secret, written in forms.items()
        if any(form in text for form in written)
    ]


def files(folder: Path) -> dict[str, str]:
    """Return the texts of all files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes().decode(errors="replace")
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


class Onlooker(threading.Thread):
    """Reads the titles of a process's descendants while it runs, and its metrics."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.titles: set[str] = set()
        self.over = threading.Event()

    def run(self) -> None:
        """Look until told that it is over."""
        while not self.over.wait(0.05):
            for pid in (self.pid, *descendants(self.pid)):
                for name in ("cmdline", "comm"):
                    try:
                        text = Path(f"/proc/{pid}/{name}").read_bytes()
                    except OSError:
                        continue
                    self.titles.add(text.decode(errors="replace"))


def vault(folder: Path) -> str:
    """Return a command that tells the keys in turn."""
    script = folder / "vault.py"
    script.write_text(VAULT)
    return f"{sys.executable} {script} {folder / 'turn'}"


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    """Run once with everything on."""
    folder, out = tmp_path_factory.mktemp("keys"), tmp_path_factory.mktemp("out")
    # It wants the second key from its 20th question on, and repeats what it is shown.
    quirk = Quirk(key=f"{FIRST} {SECOND}", good_for=20, pages={"/metrics": VLLM})
    with collecting() as collector, endpoint_with(quirk) as url:
        more = environ(
            PLANTED_FIRST=FIRST, PLANTED_SECOND=SECOND,
            http_proxy=f"http://me:{PROXY_WORD}@127.0.0.1:1", no_proxy="127.0.0.1",
            TMPDIR=str(folder), **collector.environ(OTEL_TRACES_SAMPLER_ARG="1"),
        )  # fmt: skip
        process = start(
            "run", "azure-chat", "--host", url, "--rate", "20", "--duration", "3s",
            "--api-key-cmd", vault(folder), "--proxy", "env", "--metrics-port", "0",
            "--server-metrics", "auto", "--out", str(out), env=more,
        )  # fmt: skip
        onlooker = Onlooker(process.pid)
        onlooker.start()
        shown, metrics = _read(process)
        onlooker.over.set()
        onlooker.join()
        run = latest(out)
        left = Left(run, process.returncode, quirk=quirk)
        left.texts = files(out) | {
            "shown": shown, "metrics": metrics, "exported": _exported(collector),
            "titles": "\n".join(onlooker.titles),
        }  # fmt: skip
        bundle = out.with_name(f"{out.name}.zip")
        for verb, *rest in (("report",), ("bundle", "--out", str(bundle))):
            done = loadstone(verb, str(run.path), *rest, env=more)
            left.texts[verb] = done.stdout + done.stderr
        with ZipFile(bundle) as archive:
            for name in archive.namelist():
                left.texts[f"bundle/{name}"] = archive.read(name).decode(
                    errors="replace"
                )
        left.texts |= files(out)
        yield left


def _read(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Read all that a run prints, and its metrics while it is on."""
    assert process.stdout is not None
    shown, metrics = [], ""
    for line in process.stdout:
        shown.append(line)
        if line.startswith("metrics ") and not metrics:
            time.sleep(2.0)
            with urllib.request.urlopen(line.split()[-1]) as page:
                metrics = page.read().decode()
    process.wait(PATIENCE_S)
    process.stdout.close()
    return "".join(shown), metrics


def _exported(collector: Collector) -> str:
    told = (collector.spans, collector.points, collector.headers, collector.paths)
    return "\n".join(map(repr, told))


def test_a_key_that_expires_in_mid_run_is_renewed(left: Left) -> None:
    """Nothing fails: who met the expiry asked again, and its row says so."""
    assert left.code in (0, 4), left.texts["shown"]
    summary = left.run.summary
    assert summary["requests"]["ok"] == summary["requests"]["sent"] > 20
    assert summary["endpoint"]["retries"] >= 1
    assert sum(row.get("retries", 0) for row in left.run.rows) >= 1
    shown = {key.removeprefix("Bearer ") for key in left.quirk.keys} - {""}
    assert shown == {FIRST, SECOND}


def test_nothing_has_a_secret(left: Left) -> None:
    """No file, log, metric, trace, process title or report; and all were looked at."""
    assert leaks(left.texts) == []
    names = " ".join(left.texts)
    for name in ("plan.toml", "environment.json", "requests.jsonl", "summary.json",
                 "metrics.prom", "server_metrics.jsonl", "locust.log"):  # fmt: skip
        assert name in names
    assert "loadstone_requests_total" in left.texts["metrics"]
    assert "locustfile.py" in left.texts["titles"]
    assert "loadgen.scrape" in left.texts["titles"]
    assert "time_to_first_token" in left.texts["exported"]


def test_the_search_would_find_one() -> None:
    """In any of the forms that it looks for."""
    encoded = base64.b64encode(SECOND.encode()).decode()
    assert leaks({"a": f"x{FIRST}y", "b": encoded, "c": "sk-"}) == [
        ("a", FIRST), ("b", SECOND),
    ]  # fmt: skip


def test_a_key_that_cannot_be_renewed_is_told(tmp_path: Path) -> None:
    """The rows fail, and the summary says why and what to do; the key stays unseen."""
    key = tmp_path / "key"
    key.write_text(FIRST)
    quirk = Quirk(key=f"{FIRST} {SECOND}", good_for=12)
    with endpoint_with(quirk) as url:
        done = loadstone(
            "run", "azure-chat", "--host", url, "--rate", "20", "--duration", "2s",
            "--api-key-file", str(key), "--out", str(tmp_path / "out"), "--json",
        )  # fmt: skip
    assert done.returncode == 4
    summary = json.loads(done.stdout)
    assert summary["requests"]["failed"] > 0
    found = summary["endpoint"]["findings"][0]
    assert (found["code"], found["requests"]) == ("auth", summary["requests"]["failed"])
    assert "--auth" in found["remedy"]
    texts = files(tmp_path / "out") | {"out": done.stdout, "err": done.stderr}
    assert leaks(texts) == []


@pytest.mark.parametrize(
    "options",
    [
        ("--host", f"http://me:{FIRST}@127.0.0.1:9"),
        ("--host", f"http://127.0.0.1:9/v1?key={FIRST}"),
        ("--host", f"http://127.0.0.1:99999/?key={FIRST}"),
        ("--proxy", f"http://me:{FIRST}@127.0.0.1:9"),
        ("--server-metrics", f"http://me:{FIRST}@127.0.0.1:9/metrics"),
        ("--server-metrics", f"http://127.0.0.1:9/metrics?token={FIRST}"),
    ],
)
def test_urls_with_secrets_are_refused_unseen(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    """Before any process is started with them."""
    done = loadstone(
        "run", "azure-chat", "--rate", "1", *options, "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.returncode == 2
    assert leaks({"out": done.stdout, "err": done.stderr}) == []
    assert not (tmp_path / "out").exists()


def test_what_a_check_shows(tmp_path: Path) -> None:
    """With a key that is refused, by a server that repeats it."""
    with endpoint_with(Quirk(key=SECOND)) as url:
        for form in ((), ("--json",)):
            done = loadstone(
                "run", "azure-chat", "--rate", "1", "--host", url, "--check", *form,
                "--api-key-env", "PLANTED", env=dict(os.environ) | {"PLANTED": FIRST},
            )  # fmt: skip
            assert done.returncode == 2
            assert "auth" in done.stdout
            assert leaks({"out": done.stdout, "err": done.stderr}) == []
