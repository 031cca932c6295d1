"""The design of ARCHITECTURE.md, kept: which module may import which."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path for package in ("models", "service") for path in (ROOT / package).rglob("*.py") if "pb" not in path.parts
)

TORCH_FREE = {
    "errors", "gate", "provenance",
    "artifact", "data", "networks.architectures", "networks.convolution", "networks.reference",
    "training.events", "training.history", "training.recipes", "export.weights", "report",
    *(f"sweeps.{name}" for name in
      ("folder", "outcome", "pictures", "plan", "spread", "summary", "sweep", "tables", "trial")),
}  # fmt: skip
"""The part of models/ that the serving install can import: modules, and packages as a whole."""

SEAM = ("models.artifact", "models.errors")
"""What service/ may know of models/, but for its command line and the next."""
TRAINING_SEAM = (
    "models.data.dataset",
    "models.gate",
    "models.training.backend",
    "models.training.process",
    "models.training.recipes",
)
"""What service/training may know besides: what a run begins with, and where its process starts."""
MOST_LOOSE_FILES = {"service": 8, "models": 6}
"""Modules that lie directly in a package, without ``__init__``: everything else has a room."""


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
        elif isinstance(node, ast.ImportFrom):
            # A relative import begins at the package that the file lies in.
            above = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join((*above, *([node.module] if node.module else [])))
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
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


INFERENCE = ("service.inference", "service.repository", "service.runtime")
OUTER = ("service.server", "service.cli")

# (who, must not import, why)
RULES = [
    ("models", ("service", "grpc", "click"), "models knows nothing of services or command lines"),
    ("service", ("torch", "onnxscript", "numba", "llvmlite"), "serving never imports torch or a compiler"),
    (
        "service.wire",
        ("models", *INFERENCE, *OUTER, "service.rpc", "service.transport", "asyncio", "grpc"),
        "bytes of both ends, and nothing of models",
    ),
    ("service.rpc", (*INFERENCE, *OUTER, "service.transport", "models", "grpc"), "rows know no engine and no models"),
    ("service.security", (*INFERENCE, *OUTER, "service.transport", "models", "grpc"), "rights know neither"),
    ("service.transport", (*INFERENCE, *OUTER, "models"), "transport knows no models"),
    ("service.runtime", ("service.repository", "service.inference", *OUTER, "grpc"), "one model at work"),
    (
        "service.repository",
        ("service.inference", "service.training", *OUTER, "service.transport", "grpc"),
        "one version",
    ),
    ("service.inference", ("service.training", *OUTER, "service.transport", "grpc"), "a slice, free of transport"),
    (
        "service.training",
        (*INFERENCE, *OUTER, "service.transport", "grpc", "onnxruntime"),
        "a slice, free of transport, which meets inference on disk",
    ),
    ("service.health", ("service.transport", *OUTER, "grpc"), "servicers know no transport"),
    ("service.client", ("models", *INFERENCE, *OUTER, "service.transport", "onnxruntime"), "a client needs no server"),
    (
        "service.bench",
        (*INFERENCE, *OUTER, "service.transport", "grpc", "onnxruntime"),
        "a load generator needs no server, and grpcio's client is too slow for it",
    ),
    ("service.observability", (*OUTER, "grpc"), "what is seen does not depend on the transport"),
    ("service.errors", ("service", "grpc", "models"), "the error tree stands alone"),
    ("service.workers", (*OUTER, "grpc", "onnxruntime"), "workers are told what to serve"),
]


@pytest.mark.parametrize(("who", "forbidden", "why"), RULES, ids=[who for who, _, _ in RULES])
def test_arrows(who, forbidden, why) -> None:
    checked = [path for path in SOURCES if is_under(module_name(path), who)]
    assert checked
    for path in checked:
        wrong = sorted(module for module in imports(path) if is_under(module, *forbidden))
        assert not wrong, f"{module_name(path)} imports {', '.join(wrong)}: {why}"


def test_only_the_command_line_imports_the_server() -> None:
    importers = {module_name(path) for path in SOURCES if "service.server.server" in internal_imports(path)}
    assert importers
    assert all(is_under(name, "service.cli") for name in importers)


def test_the_service_knows_only_the_seam_of_models() -> None:
    for path in SOURCES:
        name = module_name(path)
        if is_under(name, "service") and not is_under(name, "service.cli"):
            known = {module for module in internal_imports(path) if is_under(module, "models")} - {"models"}
            allowed = (*SEAM, *(TRAINING_SEAM if is_under(name, "service.training") else ()))
            wrong = sorted(module for module in known if not is_under(module, *allowed))
            assert not wrong, f"{name} knows {', '.join(wrong)}"


def test_what_a_client_needs_can_be_built_without_the_rest() -> None:
    """`client`, `wire`, `pb`, `errors` and `address` import each other, by relative imports, and nothing else here."""
    parts = ("service.client", "service.wire", "service.pb", "service.errors", "service.address")
    checked = [path for path in SOURCES if is_under(module_name(path), *parts)]
    assert len(checked) > 20
    for path in checked:
        internal = {module for module in internal_imports(path) if module not in ("service", "models")}
        wrong = sorted(module for module in internal if not is_under(module, *parts))
        assert not wrong, f"{module_name(path)} imports {', '.join(wrong)}"
        absolute = re.findall(r"^ *(?:from|import) (?:service|models)\b.*", path.read_text(), re.MULTILINE)
        assert not absolute, f"{module_name(path)}: {absolute[0]}"


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
    assert all(is_under(name, "models.training.fused") for name in users)
    eager = {
        module_name(path)
        for path in SOURCES
        if "models.training.fused.fused_engine" in internal_imports(path, lazy=False)
    }
    assert eager == set(), "numba takes a while to import, and may be missing"


def test_the_process_of_a_run_sets_its_limits_before_it_imports_torch() -> None:
    known = imports(ROOT / "models" / "training" / "process.py", lazy=False)
    assert not [module for module in known if is_under(module, "models", "torch", "numpy")]


def test_the_torch_free_part_of_models_is_torch_free_all_the_way_down() -> None:
    parts = tuple(f"models.{name}" for name in TORCH_FREE)
    packages = ("models.networks", "models.training", "models.export", "models.sweeps")  # whose own files are empty
    checked = [path for path in SOURCES if is_under(module_name(path), *parts)]
    assert checked
    for path in checked:
        name = module_name(path)
        assert not any(is_under(module, "torch", "onnxscript", "numba", "llvmlite") for module in imports(path)), name
        needed = {module for module in internal_imports(path) if module not in ("models", *packages)}
        wrong = sorted(module for module in needed if not is_under(module, *parts))
        assert not wrong, f"{name} imports {', '.join(wrong)}"


@pytest.mark.parametrize("package", MOST_LOOSE_FILES)
def test_files_have_rooms(package) -> None:
    loose = [path.name for path in (ROOT / package).glob("*.py") if path.name != "__init__.py"]
    assert len(loose) <= MOST_LOOSE_FILES[package], loose


def test_no_file_name_occurs_more_than_twice() -> None:
    names = Counter(path.name for path in SOURCES if path.name not in ("__init__.py", "errors.py", "servicer.py"))
    assert {name: count for name, count in names.items() if count > 2} == {}


def test_tests_mirror_the_rooms() -> None:
    rooms = {str(path.parent.relative_to(ROOT)) for path in SOURCES}
    tested = {
        path.parent.relative_to(ROOT / "tests")
        for package in ("models", "service")
        for path in (ROOT / "tests" / package).rglob("test_*.py")
    }
    assert sorted(str(folder) for folder in tested if str(folder) not in rooms) == []


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


def test_docstrings_make_sense_alone() -> None:
    """A docstring is read on hover, without the one above it: it is no fragment that begins with what it belongs to."""
    fragments = re.compile(r"(See|The same|Of|As|Its|And|Also|Those|Theirs)\b")
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for statement in node.body:
                value = statement.value if isinstance(statement, ast.Expr) else None
                text = value.value if isinstance(value, ast.Constant) else None
                if isinstance(text, str) and fragments.match(text):
                    found.append(f"{module_name(path)}, line {statement.lineno}: {text[:60]}")
    assert found == []


def test_the_supervisor_of_workers_imports_nothing_large() -> None:
    program = (
        "import sys; import service.cli, service.cli.commands.serve, service.workers.supervisor\n"
        "print(sorted({'grpc', 'google.protobuf', 'numpy', 'onnxruntime', 'rich', 'uvloop'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_the_serving_modules_import_where_torch_cannot() -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnxscript', 'numba', 'llvmlite')))\n"
        "import service.server.server, service.client, models.report.page, models.training.recipes\n"
        "import models.artifact.golden_proof, service.training.service\n"
        "from service.cli.commands import bench, models, predict, prove, report, runs, serve, sweep, up\n"
        "print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "fine\n", done.stderr
