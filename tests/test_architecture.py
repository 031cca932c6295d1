"""The design of ARCHITECTURE.md, kept: which module may import which."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path for package in ("models", "service") for path in (ROOT / package).rglob("*.py") if "pb" not in path.parts
)

TORCH_FREE = {
    "architectures", "artifact", "augmentation", "batch_identity", "batches", "convolution", "dataset", "datatypes",
    "errors", "events", "gate", "golden_proof", "goldens", "history", "onnx_session", "onnx_weights", "parity_report",
    "parity_rows", "provenance", "publication", "published_run", "recipes", "reference", "tensor_spec", "writable",
    *(f"report.{path.stem}" for path in (ROOT / "models" / "report").glob("[!_]*.py")),
    *(f"sweeps.{name}" for name in
      ("folder", "outcome", "pictures", "plan", "spread", "summary", "sweep", "tables", "trial")),
}  # fmt: skip
"""The part of models/ that the serving install can import."""

SEAM = {"models", "models.networks.architectures", "models.artifact.artifact", "models.artifact.batch_identity", "models.artifact.datatypes",
        "models.errors", "models.artifact.goldens", "models.artifact.onnx_session",
        "models.artifact.publication", "models.artifact.tensor_spec"}  # fmt: skip
"""What service/ (but for its command line) may know of models/."""


TRAINING_SEAM = {
    "models.data.dataset",
    "models.training.backend",
    "models.gate",
    "models.training.process",
    "models.artifact.published_run",
    "models.training.recipes",
}
"""What service/training may know besides: what a run begins with, where its process starts, what it has published."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports(path: Path, *, lazy: bool = True) -> frozenset[str]:
    """Every module a file imports; without ``lazy`` only what importing the file itself imports."""
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        if not lazy and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        todo.extend(ast.iter_child_nodes(node))
    return frozenset(found)


def is_under(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@cache
def names_of_modules() -> frozenset[str]:
    return frozenset(module_name(path) for path in SOURCES)


def internal_imports(path: Path, *, lazy: bool = True) -> set[str]:
    return set(imports(path, lazy=lazy) & names_of_modules())


# (who, must not import, why)
RULES = [
    ("models", ("service", "grpc", "click"), "models knows nothing of services or command lines"),
    ("service", ("torch", "onnxscript", "numba", "llvmlite"), "serving never imports torch or a compiler"),
    ("service.inference", ("service.training", "service.cli", "service.server", "grpc"), "a slice, free of transport"),
    (
        "service.transport",
        ("service.inference", "service.server", "service.cli", "models"),
        "transport knows no models",
    ),
    (
        "service.training",
        ("service.inference", "service.cli", "service.server", "grpc", "onnxruntime"),
        "a slice, free of transport, which meets inference on disk",
    ),
    ("service.health", ("grpc",), "servicers know no transport"),
    ("service.readiness", ("grpc",), "servicers know no transport"),
    ("service.client", ("service.inference", "service.server", "onnxruntime"), "a client needs no server"),
    (
        "service.bench",
        ("service.inference", "service.transport", "service.server", "service.cli", "grpc", "onnxruntime"),
        "a load generator needs no server, and grpcio's client is too slow for it",
    ),
    (
        "service.observability",
        ("service.server", "service.cli", "grpc"),
        "what is seen does not depend on the transport",
    ),
    ("service.access", ("grpc", "service.inference", "service.server"), "rights know no transport and no models"),
    ("service.tokens", ("grpc", "service.inference", "service.server"), "tokens know no transport and no models"),
    ("service.tls", ("grpc", "service.inference", "service.server"), "files are checked before any transport"),
    ("service.errors", ("service", "grpc", "models"), "the error tree stands alone"),
    ("service.workers", ("service.server", "service.cli", "grpc", "onnxruntime"), "workers are told what to serve"),
]


@pytest.mark.parametrize(("who", "forbidden", "why"), RULES, ids=[who for who, _, _ in RULES])
def test_arrows(who, forbidden, why) -> None:
    checked = [path for path in SOURCES if is_under(module_name(path), who)]
    assert checked
    for path in checked:
        wrong = sorted(module for module in imports(path) if is_under(module, *forbidden))
        assert not wrong, f"{module_name(path)} imports {', '.join(wrong)}: {why}"


def test_only_the_command_line_imports_the_server() -> None:
    importers = {module_name(path) for path in SOURCES if "service.server" in internal_imports(path)}
    assert importers
    assert all(is_under(name, "service.cli") for name in importers)


def test_the_service_knows_only_the_seam_of_models() -> None:
    for path in SOURCES:
        name = module_name(path)
        if is_under(name, "service") and not is_under(name, "service.cli"):
            known = {module for module in internal_imports(path) if is_under(module, "models")}
            allowed = SEAM | (TRAINING_SEAM if is_under(name, "service.training") else set())
            assert known <= allowed, f"{name} knows {sorted(known - allowed)}"


def test_only_engines_know_grpcio() -> None:
    users = {module_name(path) for path in SOURCES if any(is_under(module, "grpc") for module in imports(path))}
    allowed = {"service.transport.grpcio_engine"}
    clients = ("sync_client", "async_client", "training_client", "async_training_client")
    allowed |= {f"service.client.{name}" for name in ("connection", "channels", *clients)}
    assert users == allowed


def test_only_the_fused_engine_knows_numba() -> None:
    users = {
        module_name(path) for path in SOURCES if any(is_under(name, "numba", "llvmlite") for name in imports(path))
    }
    assert users
    assert all(is_under(name, "models.fused") for name in users)
    eager = {
        module_name(path)
        for path in SOURCES
        if "models.training.fused.fused_engine" in internal_imports(path, lazy=False)
    }
    assert eager == set(), "numba takes a while to import, and may be missing"


def test_the_process_of_a_run_sets_its_limits_before_it_imports_torch() -> None:
    known = imports(ROOT / "models" / "job.py", lazy=False)
    assert not [module for module in known if is_under(module, "models", "torch", "numpy")]


def test_the_torch_free_part_of_models_is_torch_free_all_the_way_down() -> None:
    for name in TORCH_FREE:
        path = ROOT / "models" / f"{name.replace('.', '/')}.py"
        assert not any(is_under(module, "torch", "onnxscript", "numba", "llvmlite") for module in imports(path)), name
        needed = {module.removeprefix("models.") for module in internal_imports(path)} - {"models", "report", "sweeps"}
        assert needed <= TORCH_FREE, f"models.{name} imports {sorted(needed - TORCH_FREE)}"


def test_every_module_is_in_the_layout_of_the_architecture() -> None:
    layout = (ROOT / "ARCHITECTURE.md").read_text().split("```")[1]
    named = set(re.findall(r"\w+", layout))
    modules = {name for name in names_of_modules() if not is_under(name, "service.cli", "service.client")}
    assert sorted(name for name in modules if name.rpartition(".")[2] not in named) == []


def test_there_are_no_import_cycles() -> None:
    graph = {module_name(path): internal_imports(path, lazy=False) - {module_name(path)} for path in SOURCES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module in done:
            return
        for needed in graph[module]:
            # A package's __init__ is imported before its modules and imports none of them here.
            if not is_under(module, needed):
                visit(needed, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def test_no_source_file_asks_for_a_second_noun() -> None:
    lengths = {module_name(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > 600} == {}


def test_the_supervisor_of_workers_imports_nothing_large() -> None:
    program = (
        "import sys; import service.cli, service.cli.serve, service.workers.supervisor\n"
        "print(sorted({'grpc', 'google.protobuf', 'numpy', 'onnxruntime', 'rich', 'uvloop'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_the_serving_modules_import_where_torch_cannot() -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnxscript', 'numba', 'llvmlite')))\n"
        "import service.server, service.client, service.cli.serve, service.cli.predict, service.cli.models\n"
        "import service.cli.up, service.cli.prove, service.cli.bench, service.cli.report, service.cli.sweep\n"
        "import models.report.page\n"
        "import models.training.recipes, models.artifact.golden_proof\n"
        "import service.training.service, service.cli.runs\n"
        "print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "fine\n", done.stderr
