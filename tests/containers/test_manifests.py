"""Everything below deploy/ that a cluster shall take: by the schemas of Kubernetes and KServe, and by our own rules."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from models import __version__
from service.config import ServerConfig
from tests.containers.conftest import ROOT

yaml = pytest.importorskip("yaml", reason="make test-containers installs it")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KUBERNETES = sorted(path for path in (ROOT / "deploy/kubernetes").rglob("*.yaml") if path.stem != "kustomization")
KSERVE = sorted(path for path in (ROOT / "deploy/kserve").rglob("*.yaml") if path.stem != "kustomization")
JOBS = {"trainer-job.yaml", "sweep-job.yaml"}
"""Applied by themselves: what a Job runs cannot be changed, so that a second apply of all would fail."""


def documents(*paths: Path) -> Iterator[dict[str, Any]]:
    for path in paths:
        yield from yaml.safe_load_all(path.read_text())


def by_kind(kind: str) -> dict[str, Any]:
    (found,) = [document for document in documents(*KUBERNETES) if document["kind"] == kind]
    return found


def pods(*paths: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and the pod of everything that makes pods."""
    for document in documents(*paths):
        if document["kind"] in ("Deployment", "Job"):
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]
        if document["kind"] == "ServingRuntime":
            yield document["metadata"]["name"], document["spec"]


@pytest.mark.parametrize("path", KUBERNETES, ids=[path.name for path in KUBERNETES])
def test_kubernetes_knows_every_field(tool, path) -> None:
    done = tool("kubernetes-validate", "--strict", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_field_that_kubernetes_does_not_know_is_noticed(tool, tmp_path: Path) -> None:
    faulty = tmp_path / "deployment.yaml"
    text = (ROOT / "deploy/kubernetes/deployment.yaml").read_text()
    faulty.write_text(text.replace("readOnlyRootFilesystem", "readOnlyRootFileSystem"))
    assert tool("kubernetes-validate", "--strict", faulty).returncode != 0


def kserve_problems(document: dict[str, Any]) -> list[str]:
    """What the schema of its custom resource definition has against a document."""
    jsonschema = pytest.importorskip("jsonschema", reason="make test-containers installs it")
    name = f"kserve-{document['kind'].lower()}-{document['apiVersion'].rpartition('/')[2]}.json"
    schema = closed(json.loads((ROOT / "tests/containers/schemas" / name).read_text()))
    return [
        f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(schema).iter_errors(document)
    ]


def closed(schema: Any, *, is_root: bool = True) -> Any:
    """A schema of Kubernetes with its own meaning of unknown fields: they are refused."""
    if isinstance(schema, list):
        return [closed(each, is_root=False) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: closed(each, is_root=False) for name, each in value.items()}
        if key == "properties"
        else closed(value, is_root=False)
        for key, value in schema.items()
    }
    if is_root:
        made["properties"]["metadata"] = {"type": "object"}  # checked by every cluster alike
    if (
        "properties" in made
        and "additionalProperties" not in made
        and not made.get("x-kubernetes-preserve-unknown-fields")
    ):
        made["additionalProperties"] = False
    if made.get("nullable"):
        made["type"] = [made["type"], "null"]
    return made


@pytest.mark.parametrize("path", KSERVE, ids=[path.name for path in KSERVE])
def test_kserve_knows_every_field(path) -> None:
    found = list(documents(path))
    assert {document["kind"] for document in found} <= {"ServingRuntime", "InferenceService"}
    assert [problem for document in found for problem in kserve_problems(document)] == []


@pytest.mark.parametrize(
    ("name", "right", "wrong", "says"),
    [
        ("serving-runtime", "supportedModelFormats:", "supportedModelFormat:", "supportedModelFormat"),
        ("serving-runtime", "containerPort: 8001", 'containerPort: "h2c"', "is not of type 'integer'"),
        ("serving-runtime", "readOnlyRootFilesystem", "readOnlyRootFileSystem", "readOnlyRootFileSystem"),
        ("inference-service", "minReplicas: 1", "minReplica: 1", "minReplica"),
        ("inference-service", "scaleMetric: concurrency", "scaleMetric: coffee", "is not one of"),
        ("inference-service", 'modelFormat: {name: mnist1d, version: "1"}', "modelFormat: {}", "'name' is a required"),
    ],
)
def test_a_field_that_kserve_does_not_know_is_noticed(name, right, wrong, says) -> None:
    text = (ROOT / f"deploy/kserve/{name}.yaml").read_text()
    assert right in text
    (problem,) = kserve_problems(yaml.safe_load(text.replace(right, wrong)))
    assert says in problem


def kustomization(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / folder / "kustomization.yaml").read_text())
    return found


def images(*paths: Path) -> set[str]:
    return {container["image"] for _, pod in pods(*paths) for container in pod["containers"]}


def test_kustomizations_name_every_file_but_the_jobs() -> None:
    jobs = {path.name for path in KUBERNETES if any(each["kind"] == "Job" for each in documents(path))}
    assert jobs == JOBS
    assert set(kustomization("kubernetes")["resources"]) == {path.name for path in KUBERNETES} - JOBS
    assert set(kustomization("kserve")["resources"]) == {path.name for path in KSERVE}


def test_everything_is_in_the_namespace_that_is_made() -> None:
    (made,) = [each["metadata"]["name"] for each in documents(*KUBERNETES) if each["kind"] == "Namespace"]
    named = [each["metadata"]["namespace"] for each in documents(*KUBERNETES, *KSERVE) if each["kind"] != "Namespace"]
    assert len(named) > 10
    assert set(named) == {made} == {kustomization(folder)["namespace"] for folder in ("kubernetes", "kserve")}


def test_images_have_a_name_each_and_the_version_of_the_package() -> None:
    jobs = [path for path in KUBERNETES if path.name in JOBS]
    servers = [path for path in KUBERNETES if path.name not in JOBS]
    assert images(*jobs) == {f"mnist1d-service-train:{__version__}"}
    assert images(*servers) == images(*KSERVE) == {f"mnist1d-service-serve:{__version__}"}
    for folder in ("kubernetes", "kserve"):
        (image,) = kustomization(folder)["images"]
        assert (image["name"], image["newTag"]) == ("mnist1d-service-serve", __version__)
    # What the guide and the files themselves tell to replace in a job is there.
    for path in (*jobs, ROOT / "docs/operations.md"):
        assert f"sed 's|mnist1d-service-train:{__version__}|" in path.read_text(), path.name


@pytest.mark.parametrize("folder", ["kubernetes", "kserve"])
def test_kustomize_replaces_the_image_of_the_servers(tool, tmp_path: Path, folder) -> None:
    copy = tmp_path / folder
    shutil.copytree(ROOT / "deploy" / folder, copy)
    path = copy / "kustomization.yaml"
    path.write_text(re.sub(r"newName: .*", "newName: registry.example/x, newTag: '7'}", path.read_text()))
    done = tool("kubectl", "kustomize", copy)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"image: (.*)", done.stdout) == ["registry.example/x:7"]


def test_pods_have_nothing_that_they_do_not_need() -> None:
    found = dict(pods(*KUBERNETES, *KSERVE))
    assert {"server", "trainer", "mnist1d-service"} <= set(found)
    for name, pod in found.items():
        for container in pod["containers"]:
            security = {**pod.get("securityContext", {}), **container["securityContext"]}
            assert security["runAsNonRoot"], name
            assert security["runAsUser"] == 10001, name
            assert security["readOnlyRootFilesystem"], name
            assert not security["allowPrivilegeEscalation"], name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
            assert {"cpu", "memory"} <= set(container["resources"]["limits"]), name
            assert {mount["name"] for mount in container["volumeMounts"]} <= {each["name"] for each in pod["volumes"]}


def test_settings_in_manifests_are_settings_of_the_server() -> None:
    known = {f"MNIST1D_SERVE_{field.name.upper()}" for field in dataclasses.fields(ServerConfig)}
    named = [
        variable["name"]
        for _, pod in pods(*KUBERNETES, *KSERVE)
        for container in pod["containers"]
        for variable in container.get("env", ())
        if variable["name"].startswith("MNIST1D_SERVE_")
    ]
    assert len(named) > 5
    assert set(named) <= known


def test_everything_selects_the_pods_of_the_deployment() -> None:
    labels = by_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    policies = [document for document in documents(*KUBERNETES) if document["kind"] == "NetworkPolicy"]
    selectors = [
        by_kind("Deployment")["spec"]["selector"]["matchLabels"],
        by_kind("Service")["spec"]["selector"],
        by_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        next(each for each in policies if each["metadata"]["name"] == "server")["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector == labels for selector in selectors)
    assert by_kind("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "server"
    assert "replicas" not in by_kind("Deployment")["spec"]


def test_the_service_is_headless_and_its_ports_are_those_of_the_pods() -> None:
    (container,) = by_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": ServerConfig.port, "metrics": ServerConfig.metrics_port}
    service = by_kind("Service")["spec"]
    assert service["clusterIP"] == "None"
    assert {port["targetPort"]: port["port"] for port in service["ports"]} == ports


def test_probes_are_grpc_and_a_refused_model_restarts_nothing() -> None:
    (container,) = by_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["livenessProbe"]["grpc"] == {"port": 8001, "service": "liveness"}
    assert container["startupProbe"]["grpc"] == {"port": 8001, "service": "liveness"}
    assert container["readinessProbe"]["grpc"] == {"port": 8001}


def test_there_is_time_to_drain() -> None:
    pod = by_kind("Deployment")["spec"]["template"]["spec"]
    values = {variable["name"]: variable["value"] for variable in pod["containers"][0]["env"]}
    drain_s = float(values["MNIST1D_SERVE_LAME_DUCK_S"]) + float(values["MNIST1D_SERVE_GRACE_S"])
    assert drain_s < pod["terminationGracePeriodSeconds"]


def test_kserve_finds_the_runtime_by_name_format_and_port() -> None:
    found = {document["kind"]: document["spec"] for document in documents(*KSERVE)}
    model = found["InferenceService"]["predictor"]["model"]
    runtime = found["ServingRuntime"]
    assert model["runtime"] == "mnist1d-service"
    assert model["modelFormat"]["name"] in {each["name"] for each in runtime["supportedModelFormats"]}
    assert [model["protocolVersion"]] == runtime["protocolVersions"] == ["grpc-v2"]
    (container,) = runtime["containers"]
    assert container["name"] == "kserve-container"
    assert container["ports"] == [{"name": "h2c", "containerPort": ServerConfig.port, "protocol": "TCP"}]
