"""The services' own configuration: valid, and of one mind with docker-compose.yml."""

import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from prometheus_process import tool
from stack import DEPLOY, ROOT, Json, documents, limits, stack

COLLECTOR = DEPLOY / "otel-collector.yaml"
PROMETHEUS = DEPLOY / "prometheus.yml"
PROVISIONING = ROOT / "dashboards/provisioning"

# What is used, of what collector-contrib 0.144 and later document. The same file was
# accepted and run by a collector of 0.152; docs/stack.md says how.
DOCUMENTED = {
    "receivers": {"otlp": {"protocols"}},
    "processors": {
        "memory_limiter": {
            "check_interval", "limit_mib", "spike_limit_mib", "limit_percentage",
            "spike_limit_percentage",
        },
    },
    "exporters": {
        "otlp_http": {
            "endpoint", "headers", "tls", "timeout", "compression", "encoding",
            "sending_queue", "retry_on_failure",
        },
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def services() -> Json:
    """Return the services of the stack, all profiles."""
    found: Json = stack("--profile", "tracing")["services"]
    return found


@pytest.fixture(scope="module")
def collector() -> Json:
    """Return the collector's configuration."""
    (read,) = documents(COLLECTOR)
    return read


def listening(services: Json, collector: Json) -> set[tuple[str, int]]:
    """Return who listens where inside the network, by what the files say."""
    ports = {
        (name, port["target"])
        for name, service in services.items()
        for port in service.get("ports", [])
    }
    http = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    (reader,) = collector["service"]["telemetry"]["metrics"]["readers"]
    own = reader["pull"]["exporter"]["prometheus"]["port"]
    # Jaeger takes OTLP on the standard's port, in its built-in configuration.
    return ports | {
        ("otel-collector", int(http.rpartition(":")[2])),
        ("otel-collector", own),
        ("jaeger", 4318),
    }


def address(url: str) -> tuple[str, int]:
    """Return host and port of a URL."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def test_collector_uses_what_is_documented(collector: Json) -> None:
    """A misspelt component or setting would keep it from starting."""
    assert set(collector) == {*DOCUMENTED, "service"}
    for kind, known in DOCUMENTED.items():
        for name, given in collector[kind].items():
            assert set(given) <= known[name.partition("/")[0]], name


def test_collector_pipelines_are_whole(collector: Json) -> None:
    """What a pipeline names is defined, and nothing is defined for no pipeline."""
    pipelines = collector["service"]["pipelines"]
    assert set(pipelines) == {"metrics", "traces"}
    for kind in DOCUMENTED:
        named = {name for pipeline in pipelines.values() for name in pipeline[kind]}
        assert named == set(collector[kind])
    for pipeline in pipelines.values():
        assert pipeline["processors"][0] == "memory_limiter"


def test_everybody_is_called_by_their_name(services: Json, collector: Json) -> None:
    """Each URL in a file of the stack has a service and a port that listens."""
    (prometheus,) = documents(PROMETHEUS)
    scraped = [
        f"http://{target}"
        for job in prometheus["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    ]
    exported = [e["endpoint"] for e in collector["exporters"].values()]
    shown = [
        source["url"]
        for file in sorted((PROVISIONING / "grafana/datasources").glob("*.y*ml"))
        for document in documents(file)
        for source in document["datasources"]
    ]
    told = [
        value
        for service in services.values()
        for value in service.get("environment", {}).values()
        if value and value.startswith("http://")
    ]
    assert len(scraped) == 3
    assert len(exported) == 2
    assert shown
    there = listening(services, collector)
    for url in [*scraped, *exported, *shown, *told]:
        assert address(url) in there, url


def test_prometheus_takes_what_the_collector_sends(
    services: Json, collector: Json
) -> None:
    """The OTLP receiver is on, at the path that the collector's exporter adds to."""
    assert "--web.enable-otlp-receiver" in services["prometheus"]["command"]
    assert "--enable-feature=exemplar-storage" in services["prometheus"]["command"]
    endpoint = collector["exporters"]["otlp_http/prometheus"]["endpoint"]
    assert urlsplit(endpoint).path == "/api/v1/otlp"


def mounts(service: Json) -> dict[str, str]:
    """Return what is mounted from the tree, by where."""
    return {
        mount["target"]: mount["source"]
        for mount in service["volumes"]
        if mount["type"] == "bind"
    }


def test_files_are_where_they_are_looked_for(services: Json) -> None:
    """Each path in a command or a file is one that is mounted there."""
    prometheus, grafana = mounts(services["prometheus"]), mounts(services["grafana"])
    (config,) = documents(PROMETHEUS)
    (rules,) = config["rule_files"]
    assert prometheus[str(Path(rules).parent)] == str(PROVISIONING / "prometheus")
    assert list((PROVISIONING / "prometheus").glob(Path(rules).name))
    told = "--config.file=/etc/prometheus/prometheus.yml"
    assert told in services["prometheus"]["command"]
    assert prometheus["/etc/prometheus/prometheus.yml"] == str(PROMETHEUS)
    assert mounts(services["otel-collector"]) == {
        services["otel-collector"]["command"][0].partition("=")[2]: str(COLLECTOR)
    }
    assert grafana == {"/etc/grafana/provisioning": str(PROVISIONING / "grafana")}
    for file in (PROVISIONING / "grafana/dashboards").glob("*.y*ml"):
        for provider in documents(file)[0]["providers"]:
            inside = Path(provider["options"]["path"]).relative_to(*grafana)
            assert list((PROVISIONING / "grafana" / inside).glob("*.json"))


def test_grafana_knows_how_often_is_scraped() -> None:
    """`$__rate_interval` is made of it; a wrong one leaves panels empty."""
    (config,) = documents(PROMETHEUS)
    file = PROVISIONING / "grafana/datasources/prometheus.yaml"
    (source,) = documents(file)[0]["datasources"]
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]


def test_exemplars_lead_to_the_trace_store() -> None:
    """The data source that Prometheus' exemplars point to is provisioned."""
    folder = PROVISIONING / "grafana/datasources"
    sources = {
        source["uid"]: source
        for file in folder.glob("*.y*ml")
        for source in documents(file)[0]["datasources"]
    }
    prometheus = sources["loadstone-prometheus"]
    (link,) = prometheus["jsonData"]["exemplarTraceIdDestinations"]
    assert link["name"] == "trace_id"
    assert sources[link["datasourceUid"]]["type"] == "jaeger"


def test_collectors_memory_is_below_its_limit(services: Json) -> None:
    """The runtime collects garbage before the kernel ends it."""
    soft = services["otel-collector"]["environment"]["GOMEMLIMIT"]
    hard = int(limits(services["otel-collector"])["memory"])
    assert int(soft.removesuffix("MiB")) << 20 < hard


def in_the_tree(tmp_path: Path, **changes: Any) -> Path:
    """Write Prometheus' configuration with the rules of this tree, and `changes`."""
    text = PROMETHEUS.read_text()
    text = text.replace("/etc/prometheus/rules", str(PROVISIONING / "prometheus"))
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    file = tmp_path / "prometheus.yml"
    file.write_text(text)
    return file


def test_prometheus_config_passes_its_own_check(tmp_path: Path) -> None:
    """`promtool` accepts it with all its rules, and refuses a spoilt one."""
    promtool = tool("promtool")

    def check(file: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [promtool, "check", "config", file],
            capture_output=True,
            text=True,
            check=False,
        )

    done = check(in_the_tree(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout
    assert "rule files found" in done.stdout
    spoilt = check(in_the_tree(tmp_path, scrape_interval="scrape_intervall"))
    assert spoilt.returncode != 0
    assert "scrape_intervall" in spoilt.stderr
