"""deploy/kubernetes: valid by Kubernetes' own schemas, and as restricted as it says."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from stack import DEPLOY, Json, documents, stack

from loadgen.options import OPTIONS
from loadstone import __version__

FOLDER = DEPLOY / "kubernetes"
FILES = sorted(FOLDER.rglob("*.yaml"))
VERSIONS = ("1.30", "1.34", "1.37")
WORKLOADS = {"StatefulSet": {"mock"}, "Deployment": {"locust-master", "locust-worker"}}


def manifests(*kinds: str) -> list[Json]:
    """Return the manifests of these kinds, or all."""
    every = [document for file in FILES for document in documents(file)]
    return [m for m in every if not kinds or m["kind"] in kinds]


def named(kind: str, name: str) -> Json:
    """Return one manifest."""
    (found,) = (m for m in manifests(kind) if m["metadata"]["name"] == name)
    return found


def pod(manifest: Json) -> Json:
    """Return the pod that a workload makes."""
    found: Json = manifest["spec"]["template"]
    return found


def pods() -> list[Any]:
    """Return each workload's name and pod, as test parameters."""
    return [
        pytest.param(pod(m), id=m["metadata"]["name"]) for m in manifests(*WORKLOADS)
    ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(FOLDER)))
def test_manifests_are_valid(file: Path, version: str) -> None:
    """The API server of these versions knows every field, and each value's type."""
    read = documents(file)
    assert read
    for manifest in read:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schemas_would_notice() -> None:
    """The check above is a check: a misspelt field is refused."""
    spoilt = copy.deepcopy(named("StatefulSet", "mock"))
    (container,) = pod(spoilt)["spec"]["containers"]
    container["readynessProbe"] = container.pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(spoilt, VERSIONS[-1], strict=True)


def test_everything_is_in_one_namespace() -> None:
    """Deleting the namespace deletes it all, and it admits restricted pods alone."""
    (namespace,) = manifests("Namespace")
    name = namespace["metadata"]["name"]
    enforce = namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert enforce == "restricted"
    for manifest in manifests():
        if manifest is not namespace and manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == name
    assert documents(FILES[0]) == [namespace], "it must be made first"


def test_workloads_are_the_expected_ones() -> None:
    """The mock has names that last; Locust needs none."""
    found = {
        kind: {m["metadata"]["name"] for m in manifests(kind)} for kind in WORKLOADS
    }
    assert found == WORKLOADS


@pytest.mark.parametrize("template", pods())
def test_pods_are_restricted(template: Json) -> None:
    """As Pod Security's `restricted` asks, and with a root that cannot be written."""
    spec = template["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert not [v for v in spec["volumes"] if "hostPath" in v]


@pytest.mark.parametrize("template", pods())
def test_pods_say_what_they_need(template: Json) -> None:
    """Requests and a memory limit; no CPU limit, which would be measured as latency."""
    (container,) = template["spec"]["containers"]
    resources = container["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert set(resources["limits"]) == {"memory"}
    assert container["image"] == f"loadstone:{__version__}"
    assert "readinessProbe" in container


@pytest.mark.parametrize("template", pods())
def test_mounts_have_volumes(template: Json) -> None:
    """What a container mounts is there, and nothing else is."""
    volumes = {v["name"]: v for v in template["spec"]["volumes"]}
    (container,) = template["spec"]["containers"]
    assert {m["name"] for m in container["volumeMounts"]} == set(volumes)
    for volume in volumes.values():
        if "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]["claimName"]
            assert named("PersistentVolumeClaim", claim)
        if "secret" in volume:
            assert named("Secret", volume["secret"]["secretName"])


def test_the_mock_is_probed_at_its_health() -> None:
    """One pod is one VM, and says how it is where `loadstone serve` does."""
    (container,) = pod(named("StatefulSet", "mock"))["spec"]["containers"]
    assert container["args"][:1] == ["serve"]
    assert container["args"][container["args"].index("--vms") + 1] == "1"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}


def test_services_find_their_pods() -> None:
    """Each selector matches one workload, each port one that a container names."""
    templates = [pod(m) for m in manifests(*WORKLOADS)]
    for service in manifests("Service"):
        selector = service["spec"]["selector"].items()
        (found,) = (t for t in templates if selector <= t["metadata"]["labels"].items())
        names = {
            port["name"]: port["containerPort"]
            for container in found["spec"]["containers"]
            for port in container["ports"]
        }
        for port in service["spec"]["ports"]:
            assert names[port["targetPort"]] == port["port"]
    vms = named("StatefulSet", "mock")["spec"]["serviceName"]
    assert named("Service", vms)["spec"]["clusterIP"] == "None"


def test_policies_select_what_there_is() -> None:
    """Who may talk to whom is written of pods that exist."""
    labels = [pod(m)["metadata"]["labels"] for m in manifests(*WORKLOADS)]
    for selector in selectors(manifests("NetworkPolicy")):
        assert any(selector.items() <= each.items() for each in labels), selector


def selectors(node: Any) -> Iterator[Json]:
    """Yield the labels of all pod selectors below a node."""
    if isinstance(node, dict):
        if "podSelector" in node:
            yield node["podSelector"].get("matchLabels", {})
        for value in node.values():
            yield from selectors(value)
    elif isinstance(node, list):
        for value in node:
            yield from selectors(value)


def test_load_is_told_as_in_the_compose_stack() -> None:
    """The same variables mean the same in both, and each is an option of `run`."""
    data = named("ConfigMap", "load")["data"]
    known = {f"LOADSTONE_{option.name.upper()}" for option in OPTIONS}
    assert {name for name in data if name.startswith("LOADSTONE_")} <= known
    compose = stack()["services"]["locust-worker"]["environment"]
    for name in ("LOCUST_LOCUSTFILE", "LOCUST_HOST", "LOADSTONE_OUT"):
        assert data[name] == compose[name]
    for name in WORKLOADS["Deployment"]:
        (container,) = pod(named("Deployment", name))["spec"]["containers"]
        assert container["envFrom"] == [{"configMapRef": {"name": "load"}}]
        mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
        assert mounts["runs"] == data["LOADSTONE_OUT"]
        assert data["LOADSTONE_API_KEY_FILE"] == f"{mounts['key']}/api_key"


def test_commands_are_those_of_the_compose_stack() -> None:
    """One stack, two ways to run it: what starts is the same."""
    services = stack()["services"]
    for name in WORKLOADS["Deployment"]:
        (container,) = pod(named("Deployment", name))["spec"]["containers"]
        assert container["command"] == services[name]["entrypoint"]
        assert container["args"] == services[name]["command"]
    (container,) = pod(named("StatefulSet", "mock"))["spec"]["containers"]
    assert container["args"] == services["mock"]["command"]
    (worker,) = pod(named("Deployment", "locust-worker"))["spec"]["containers"]
    probe = worker["readinessProbe"]["exec"]["command"]
    assert ["CMD", *probe] == services["locust-worker"]["healthcheck"]["test"]


def test_secrets_are_examples_and_empty() -> None:
    """They lie apart, so that applying the folder never overwrites a real one."""
    found = {m["metadata"]["name"]: m["stringData"] for m in manifests("Secret")}
    assert found == {"endpoint-key": {"api_key": ""}, "web-password": {"password": ""}}
    applied = [d["kind"] for f in FOLDER.glob("*.yaml") for d in documents(f)]
    assert "Secret" not in applied


def test_the_master_asks_for_a_login() -> None:
    """Its password is mounted where it is looked for; the workers have none."""
    told = "LOADSTONE_WEB_PASSWORD_FILE"
    found = {}
    for name in WORKLOADS["Deployment"]:
        (container,) = pod(named("Deployment", name))["spec"]["containers"]
        mounts = {m["mountPath"] for m in container["volumeMounts"]}
        given = {each["name"]: each["value"] for each in container["env"]}
        found[name] = (given.get(told), "/run/secrets/web" in mounts)
    assert found == {
        "locust-master": ("/run/secrets/web/password", True),
        "locust-worker": (None, False),
    }
