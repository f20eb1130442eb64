"""docker-compose.yml, as Docker Compose reads it: what each container may, and not."""

import re
from functools import cache
from pathlib import Path

import pytest
from stack import COMPOSE_FILE, ROOT, Json, compose, documents, limits, settings, stack

from loadgen.options import OPTIONS
from loadstone import __version__

SERVICES = (
    "mock", "locust-master", "locust-worker", "otel-collector", "prometheus",
    "grafana", "jaeger",
)  # fmt: skip
LOCUST = ("locust-master", "locust-worker")
BUILT = ("mock", *LOCUST)
PASSWORD = "/run/secrets/grafana_admin_password"
LOGIN = "/run/secrets/locust_password"
KEY = "/run/secrets/api_key"

# Options that say where something is on the machine, so the stack has its own answer.
OWN = {"api_key_env", "api_key_file", "api_key_cmd", "out", "metrics_port"}


@cache
def everything() -> Json:
    """Return the stack with all profiles."""
    return stack("--profile", "tracing")


def service(name: str) -> Json:
    """Return one service."""
    found: Json = everything()["services"][name]
    return found


def test_the_stack_is_valid() -> None:
    """Compose accepts the file as it is, and says nothing about it."""
    done = compose("config", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "environ",
    [
        {"HOST": "https://llm.example.com/v1", "LOADSTONE_MODEL": "other"},
        {"LOADSTONE_API_KEY_FILE": "./somewhere/key", "WORKERS": "7"},
        {"LOADSTONE_RATE": "", "MOCK_VMS": "4", "OTEL_TRACES_SAMPLER_ARG": "0.1"},
    ],
    ids=["endpoint", "key", "load"],
)
@pytest.mark.parametrize("profile", [(), ("--profile", "tracing")], ids=["", "tracing"])
def test_the_stack_is_valid_pointed_elsewhere(
    profile: tuple[str, ...], environ: dict[str, str]
) -> None:
    """Everything that .env offers can be overridden."""
    done = compose(*profile, "config", "--quiet", **environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_compose_would_notice(tmp_path: Path) -> None:
    """The check above is a check: a wrong condition is refused."""
    text = COMPOSE_FILE.read_text()
    spoilt = tmp_path / "spoilt.yml"
    spoilt.write_text(text.replace("service_healthy", "service_happy", 1))
    assert spoilt.read_text() != text
    files = ("--project-directory", str(ROOT), "--file", str(spoilt))
    done = compose(*files, "config", "--quiet")
    assert done.returncode != 0
    assert "condition" in done.stderr


def test_services_and_profiles() -> None:
    """The trace store is there when asked for; everything else always."""
    assert set(everything()["services"]) == set(SERVICES)
    assert set(stack()["services"]) == set(SERVICES) - {"jaeger"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_port_is_on_loopback(name: str) -> None:
    """Mock and Prometheus ask for no login."""
    for port in service(name).get("ports", []):
        assert port["host_ip"] == "127.0.0.1", port
    assert "network_mode" not in service(name)


def test_published_ports_are_the_documented_ones() -> None:
    """Each published port has its variable in .env."""
    ports = {
        name: [(int(p["published"]), p["target"]) for p in service(name)["ports"]]
        for name in SERVICES
        if "ports" in service(name)
    }
    assert ports == {
        "mock": [(8000, 8000)],
        "locust-master": [(8089, 8089)],
        "prometheus": [(9090, 9090)],
        "grafana": [(3000, 3000)],
        "jaeger": [(16686, 16686)],
    }
    moved = stack(MOCK_PORT="18000")["services"]["mock"]["ports"]
    assert [(p["published"], p["target"]) for p in moved] == [("18000", 8000)]


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_runs_as_root(name: str) -> None:
    """The user is a number other than 0, so that it holds whatever the image says."""
    user, _, group = service(name)["user"].partition(":")
    assert int(user) > 0
    # Grafana's files belong to group 0 by its image; as a user it is 472 and nobody.
    assert int(group) > 0 or (name, user) == ("grafana", "472")


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_held(name: str) -> None:
    """No capabilities, no way to more, nothing to write to but what is named."""
    held = service(name)
    assert held["cap_drop"] == ["ALL"]
    assert "cap_add" not in held
    assert not held.get("privileged")
    assert held["security_opt"] == ["no-new-privileges:true"]
    assert held["read_only"] is True
    assert held["restart"] == "unless-stopped"
    assert held["logging"]["driver"] == "json-file"
    assert {"max-size", "max-file"} <= set(held["logging"]["options"])
    for mount in held.get("volumes", []):
        assert mount["type"] == "volume" or mount["read_only"], mount
        assert "docker.sock" not in mount["source"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_has_a_memory_limit(name: str) -> None:
    """None of them can take the machine that measures."""
    assert 64 << 20 <= int(limits(service(name))["memory"]) <= 2 << 30


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str) -> None:
    """Each image has a tag that says a version, and it stands in .env."""
    image = service(name)["image"]
    assert image in settings(ROOT / ".env").values()
    repository, _, tag = image.rpartition(":")
    assert repository
    assert re.fullmatch(r"v?\d+\.\d+\.\d+(@sha256:[0-9a-f]{64})?", tag), image


def test_the_image_built_here_is_of_this_version() -> None:
    """The tag says what is in it."""
    for name in BUILT:
        assert service(name)["image"] == f"loadstone:{__version__}"
    builders = [name for name in SERVICES if "build" in service(name)]
    assert builders == ["mock"], "two builds of one tag race each other"
    for name in LOCUST:
        assert service(name)["pull_policy"] == "never"


def test_health() -> None:
    """Every service can say how it is, or the file says why it cannot."""
    for name in SERVICES:
        given = documents(COMPOSE_FILE)[0]["services"][name]
        check = service(name).get("healthcheck")
        assert bool(check) is not bool(given.get("x-no-healthcheck")), name
        if check:
            assert check["test"][0] in {"CMD", "CMD-SHELL"}
            assert {"interval", "timeout", "retries", "start_period"} <= set(check)


def test_start_waits_for_health() -> None:
    """Who needs another waits until that one is well; each one waited for can tell."""
    needs = {
        name: {d: c["condition"] for d, c in service(name)["depends_on"].items()}
        for name in SERVICES
        if "depends_on" in service(name)
    }
    healthy = "service_healthy"
    assert needs == {
        "locust-master": {"mock": healthy},
        "locust-worker": {"locust-master": healthy},
        "otel-collector": {"prometheus": healthy},
        "grafana": {"prometheus": healthy},
    }
    for waited_for in {name for each in needs.values() for name in each}:
        assert "healthcheck" in service(waited_for)


def test_secrets_are_files() -> None:
    """No password or key is in the file, in .env or in a container's environment."""
    folder = ROOT / "deploy/secrets"
    assert {n: s["file"] for n, s in everything()["secrets"].items()} == {
        "api_key": str(folder / "api_key"),
        "grafana_admin_password": str(folder / "grafana_admin_password"),
        "locust_password": str(folder / "locust_password"),
    }
    # Tokens of text are counted in the plural, or by one of them.
    telling = re.compile(r"key|passw|secret|(?<!per_)token(?!s)", re.IGNORECASE)
    for name in SERVICES:
        for variable, value in service(name).get("environment", {}).items():
            if telling.search(variable):
                assert value in {PASSWORD, LOGIN, KEY}, f"{name}: {variable}"
    grafana = service("grafana")["environment"]
    assert grafana["GF_SECURITY_ADMIN_PASSWORD__FILE"] == PASSWORD
    assert "GF_SECURITY_ADMIN_PASSWORD" not in grafana
    for variable, value in settings(ROOT / ".env").items():
        assert not telling.search(variable) or value.startswith("./deploy/secrets/")
    assert "/deploy/secrets/" in (ROOT / ".gitignore").read_text().split()


def test_only_who_needs_a_secret_has_it() -> None:
    """The key goes to Locust, each password to whoever asks for it."""
    have = {
        name: [s["source"] for s in service(name)["secrets"]]
        for name in SERVICES
        if service(name).get("secrets")
    }
    assert have == {
        "locust-master": ["api_key", "locust_password"],
        "locust-worker": ["api_key"],
        "grafana": ["grafana_admin_password"],
    }


def test_grafana_tells_nobody() -> None:
    """It neither reports nor fetches anything."""
    given = service("grafana")["environment"]
    for name in ("ANALYTICS_REPORTING_ENABLED", "ANALYTICS_CHECK_FOR_UPDATES"):
        assert given[f"GF_{name}"] == "false"
    assert given["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"
    assert not {"GF_INSTALL_PLUGINS", "GF_PLUGINS_PREINSTALL"} & set(given)


def test_the_same_load_for_master_and_workers() -> None:
    """A worker draws what the master drew, so both are told the same."""
    master, worker = (service(name) for name in LOCUST)
    # Only the master has a web UI, and a login before it.
    assert master["environment"] == {
        **worker["environment"],
        "LOADSTONE_WEB_PASSWORD_FILE": LOGIN,
    }
    assert [v["source"] for v in master["volumes"]] == ["runs"]
    assert master["volumes"] == worker["volumes"]
    assert master["environment"]["LOADSTONE_OUT"] == master["volumes"][0]["target"]
    assert worker["deploy"]["replicas"] == 2
    assert stack(WORKERS="5")["services"]["locust-worker"]["deploy"]["replicas"] == 5


def test_every_option_reaches_locust() -> None:
    """An option of `loadstone run` has its line under x-load; nothing else has."""
    given = documents(COMPOSE_FILE)[0]["x-load"]
    prefix = "LOADSTONE_"
    names = {n.removeprefix(prefix).lower() for n in given if n.startswith(prefix)}
    assert names | OWN == {option.name for option in OPTIONS}
    every = {f"{prefix}{name.upper()}": "1" for name in names - OWN}
    environment = stack(**every)["services"]["locust-worker"]["environment"]
    assert every.items() <= environment.items()


def test_what_is_not_set_is_not_passed_on() -> None:
    """An option that nobody gave keeps its own default."""
    environment = service("locust-master")["environment"]
    assert environment["LOADSTONE_RATE"] == "20"
    assert environment["LOCUST_HOST"] == "http://mock:8000"
    assert environment.get("LOADSTONE_THINK") is None


def test_pointed_at_a_real_endpoint() -> None:
    """One variable moves the load, one names the key's file; the rest stays."""
    moved = stack(HOST="https://llm.example.com", LOADSTONE_API_KEY_FILE="./k/key")
    for name in LOCUST:
        environment = moved["services"][name]["environment"]
        assert environment["LOCUST_HOST"] == "https://llm.example.com"
        assert environment["LOADSTONE_API_KEY_FILE"] == KEY
    assert moved["secrets"]["api_key"]["file"] == str(ROOT / "k/key")


def test_telemetry_goes_to_the_collector() -> None:
    """Both sides export by OTLP over HTTP, and trace nothing unless asked."""
    for name in BUILT:
        given = service(name)["environment"]
        assert given["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://otel-collector:4318"
        assert given["OTEL_EXPORTER_OTLP_PROTOCOL"] == "http/protobuf"
        assert given["OTEL_SERVICE_NAME"].startswith("loadstone-")
        assert given["OTEL_TRACES_SAMPLER_ARG"] == "0"


def test_the_documented_override_works(tmp_path: Path) -> None:
    """What docs/stack.md says to write adds a folder to Locust, and takes nothing."""
    text = (ROOT / "docs/stack.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    override = tmp_path / "override.yml"
    override.write_text(block)
    files = ("--file", str(COMPOSE_FILE), "--file", str(override))
    services = stack("--project-directory", str(ROOT), *files)["services"]
    for name in LOCUST:
        targets = [volume["target"] for volume in services[name]["volumes"]]
        assert sorted(targets) == ["/loadstone/files", "/loadstone/runs"]


def test_the_documented_memory_is_the_sum_of_the_limits() -> None:
    """Without the trace store, and with the default number of workers."""
    total = sum(
        int(limits(each)["memory"]) * each["deploy"].get("replicas", 1)
        for each in stack()["services"].values()
    )
    assert f"at most {total / (1 << 30):g} GB" in (ROOT / "docs/stack.md").read_text()


def test_mounted_files_exist() -> None:
    """Docker would make a folder in the place of a file that is not there."""
    for name in SERVICES:
        for mount in service(name).get("volumes", []):
            if mount["type"] == "bind":
                assert ROOT in Path(mount["source"]).parents
                assert Path(mount["source"]).exists(), mount["source"]
