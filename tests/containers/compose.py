"""One compose project of this checkout, under a name and image tags of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
IMAGE = "mnist1d-service-test"
MINUTE_S = 60.0


class ComposeError(RuntimeError):
    """A command of the engine failed; says what it printed."""


class Project:
    """``docker compose`` with a name, an override file and variables."""

    def __init__(self, name: str, directory: Path, override: dict[str, Any], **variables: str) -> None:
        self.name = name
        self._override = directory / f"{name}.json"
        self._override.write_text(json.dumps(override))  # JSON is YAML
        self._variables = {"MNIST1D_IMAGE": IMAGE, "MNIST1D_PORT": "0", **variables}

    def compose(self, *arguments: str, check: bool = True, timeout_s: float = 2 * MINUTE_S, **variables: str) -> str:
        """Run ``docker compose`` and give what it printed; raises ComposeError if it failed and ``check``."""
        # Services of a profile are unknown to other commands without it; `up` would start them all.
        profiles = () if "up" in arguments[:1] else ("--profile", "*")
        return docker(
            "compose",
            *("--project-name", self.name),
            *("--file", str(ROOT / "docker-compose.yml")),
            *("--file", str(self._override)),
            *profiles,
            *arguments,
            check=check,
            timeout_s=timeout_s,
            variables={**self._variables, **variables},
        )

    def up(self, *arguments: str, **variables: str) -> str:
        """``up --detach --wait``; raises ComposeError where something did not get healthy."""
        return self.compose("up", "--detach", "--wait", "--no-build", *arguments, timeout_s=5 * MINUTE_S, **variables)

    def down(self) -> None:
        """Remove containers, networks and volumes."""
        self.compose("down", "--volumes", "--timeout", "5", "--remove-orphans")

    def containers(self, service: str) -> list[dict[str, Any]]:
        """What the engine knows of each container of a service, in the order of their numbers."""
        names = self.compose("ps", "--all", "--format", "{{.Name}}", service).split()
        return sorted(inspect(*names), key=lambda each: str(each["Name"])) if names else []

    def container(self, service: str) -> dict[str, Any]:
        """The only one."""
        (found,) = self.containers(service)
        return found

    def python(self, service: str, program: str) -> str:
        """What a program prints that runs inside a service's container."""
        return self.compose("exec", "--no-TTY", service, "python", "-c", program).strip()

    def resident_bytes(self, service: str) -> int:
        """Of all processes that run in a service's container, pages of libraries included."""
        program = (
            "import os\n"
            "def kb(pid):\n"
            "    for line in open(f'/proc/{pid}/status'):\n"
            "        if line.startswith('VmRSS:'): return int(line.split()[1])\n"
            "    return 0\n"
            "print(1024 * sum(kb(pid) for pid in os.listdir('/proc') if pid.isdigit() and int(pid) != os.getpid()))\n"
        )
        return int(self.python(service, program))

    def printed(self, service: str) -> str:
        """Everything that the containers of a service have printed, one after the other."""
        return "".join(docker("logs", each["Id"], check=False) for each in self.containers(service))

    def logs(self, service: str) -> list[dict[str, Any]]:
        """The log of a server, a dict a line; lines that are no JSON are left out."""
        return [json.loads(line) for line in self.printed(service).splitlines() if line.startswith("{")]

    def leftovers(self) -> list[str]:
        """What there is of this project: containers, networks, volumes."""
        ours = ("--quiet", "--filter", f"label=com.docker.compose.project={self.name}")
        kinds = (("ps", "--all"), ("network", "ls"), ("volume", "ls"))
        return [each for kind in kinds for each in docker(*kind, *ours).split()]


def docker(
    *arguments: str, check: bool = True, timeout_s: float = 2 * MINUTE_S, variables: dict[str, str] | None = None
) -> str:
    """Run ``docker`` and give its standard output, or all it printed where it may fail."""
    done = subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
        env={**os.environ, **(variables or {})},
    )
    if check and done.returncode:
        raise ComposeError(f"docker {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout if check else done.stdout + done.stderr


def inspect(*names: str) -> list[dict[str, Any]]:
    """What the engine knows of containers or images."""
    found: list[dict[str, Any]] = json.loads(docker("inspect", *names))
    return found


def address(container: dict[str, Any]) -> str:
    """Where a server's main port is on this machine."""
    (published,) = container["NetworkSettings"]["Ports"]["8001/tcp"]
    return f"{published['HostIp']}:{published['HostPort']}"


def wheels() -> Path | None:
    """A folder with torch's wheel that pip is told of (``find-links``), or None: pip will ask its index."""
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        key, _, value = line.partition("=")
        if key.endswith("find-links"):
            for folder in value.strip("'\"").replace("\\n", " ").split():
                if any(Path(folder).glob("torch-*.whl")):
                    return Path(folder)
    return None


def with_wheels(override: dict[str, Any]) -> dict[str, Any]:
    """An override file's contents that gives torch's wheel to the build of the image `train`."""
    folder = wheels()
    if folder is None:
        return override
    services = dict(override.get("services", {}))
    trainer = {**services.get("trainer", {}), "build": {"additional_contexts": {"wheels": str(folder)}}}
    return {**override, "services": {**services, "trainer": trainer}}


def added_bytes(image: str) -> int:
    """The size of the layers that this project's Dockerfile puts on its base image."""
    total = 0
    for line in docker(
        "history", "--no-trunc", "--human=false", "--format", "{{.Size}}\t{{.CreatedBy}}", image
    ).splitlines():
        size, _, made_by = line.partition("\t")
        total += int(size)
        if made_by.startswith("LABEL org.opencontainers.image.title="):
            return total
    raise ValueError(f"{image}: no layer of this project")
