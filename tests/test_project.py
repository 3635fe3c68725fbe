"""The project as a whole: folders, import rules that no linter knows, the wheel, and documents that tell the truth."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import tomllib
import zipfile
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("cudaforge", "profiling/cudaforge_profiling", "api/cudaforge_api", "prompts/cudaforge_prompts")
EXAMPLES = ("examples/tasks", "examples/recordings")
SOURCE_ROOTS = (ROOT, ROOT / "profiling", ROOT / "api", ROOT / "prompts")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


# -- folders and imports ----------------------------------------------------------------------------------------


def test_source_roots_are_no_packages() -> None:
    """profiling/__init__.py would hide Python 3.15's own package of that name: docs/adr/0001."""
    assert not [folder for folder in ("profiling", "api", "prompts") if (ROOT / folder / "__init__.py").exists()]


def test_importing_cudaforge_is_fast() -> None:
    script = "import time; t = time.perf_counter(); import cudaforge; print(time.perf_counter() - t)"
    seconds = min(float(_python(script)) for _ in range(3))
    assert seconds < 0.2


def test_importing_cudaforge_loads_neither_torch_nor_langgraph() -> None:
    script = "import sys, cudaforge; print(sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = set(ast.literal_eval(_python(script)))
    assert "cudaforge" in loaded
    assert not loaded & {"torch", "langgraph", "langchain_core", "openai", "sqlmodel", "pandas", "numpy", "pydantic"}


def test_public_names_load_when_used() -> None:
    assert _python("import cudaforge; print(all(getattr(cudaforge, n) for n in cudaforge.__all__))") == "True"


BESIDE_A_CANDIDATE = ("calls", "candidate", "confine", "gate", "guards", "inline", "protocol", "trace", "zygote")
"""Modules of cudaforge.engine; .importlinter lists the same."""


@pytest.mark.parametrize(
    "module", [*(f"cudaforge.engine.{name}" for name in BESIDE_A_CANDIDATE), "cudaforge.kernel_loader"]
)
def test_what_runs_beside_a_candidate_imports_the_standard_library_torch_and_tvm_ffi_alone(module: str) -> None:
    """Lazy imports included, and the packages that Python runs on the way to the module."""
    # The zygote forks the task's process, too, and lets Triton ask for its tools before any candidate lives.
    skipped = {"cudaforge.engine.reference", "triton"} if module.endswith("zygote") else set()
    foreign, seen, queue = set(), set(), [module]
    while queue:
        name = queue.pop()
        if name in seen or name in skipped or (path := _source_of(name)) is None:
            continue
        seen.add(name)
        parents = [name.rsplit(".", level)[0] for level in range(1, name.count(".") + 1)]
        for imported in [*parents, *_imports(path)]:
            if imported.split(".")[0] == "cudaforge":
                queue.append(imported)
            elif imported.split(".")[0] not in {*sys.stdlib_module_names, *skipped}:
                foreign.add(imported.split(".")[0])
    assert foreign <= {"torch", "tvm_ffi"}
    known = {f"cudaforge.engine.{name}" for name in BESIDE_A_CANDIDATE}
    assert {_outermost(name) for name in seen} <= {module, "cudaforge", "cudaforge.engine", *known}


def _outermost(name: str) -> str:
    """cudaforge.engine.confine of the modules in it."""
    return ".".join(name.split(".")[:3])


def test_a_forked_candidate_finds_no_more_of_ours_in_its_memory_than_it_may_see() -> None:
    """The zygote has imported the task's runner as well; what that needs for the task alone it imports lazily."""
    script = (
        "import sys; from cudaforge.engine import zygote; zygote._import_what_children_need(); print([*sys.modules])"
    )
    loaded = {_outermost(name) for name in ast.literal_eval(_python(script)) if name.startswith("cudaforge.")}
    extra = {"cudaforge.engine", "cudaforge.engine.reference", "cudaforge.engine.recipes"}
    assert loaded <= {f"cudaforge.engine.{name}" for name in BESIDE_A_CANDIDATE} | extra


def test_every_module_says_what_it_is_for() -> None:
    """Empty package markers excepted, and what is shown to models or judged as it is: examples, the suite's kernels."""
    silent = []
    for path in _modules():
        if {"examples", "suite", "tasks", "tasks_cuda"} & set(path.parts):
            continue
        text = path.read_text()
        if text.strip() and ast.get_docstring(ast.parse(text)) is None:
            silent.append(str(path.relative_to(ROOT)))
    assert not silent


# -- the wheel --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel that is built from this checkout, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", *options, str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_file_of_the_four_packages(wheel_names: set[str]) -> None:
    """Templates, migrations and the kernel loader included, and the examples: whatever git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES, *EXAMPLES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    assert files
    assert not {_place_in_wheel(name) for name in files} - wheel_names


def test_the_wheel_holds_nothing_else(wheel_names: set[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_names}
    packages = {Path(package).name for package in PACKAGES}
    assert {top for top in tops if not top.endswith(".dist-info")} == packages
    assert not [name for name in wheel_names if "__pycache__" in name]


# -- documents --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text())
    assert not [t for t in targets if "://" not in t and not (document.parent / t).exists()]


def test_documented_commands_exist_with_their_options() -> None:
    """Every `cudaforge COMMAND --option` in a document or in compose.yaml; the README has at least six."""
    wrong, count = [], 0
    for document in [*DOCUMENTS, ROOT / "compose.yaml", ROOT / "Makefile"]:
        for command, options in _documented_commands(document.read_text()):
            count += document.name == "README.md"
            known = _commands().get(command)
            if known is None or not options <= known:
                wrong.append((document.name, command, sorted(options - (known or set()))))
    assert not wrong
    assert count >= 6


def test_documented_make_targets_exist_and_all_targets_are_documented() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE)) - {"compiler", "node"}
    code = "\n".join("\n".join(_code(document.read_text())) for document in DOCUMENTS)
    mentioned = set(re.findall(r"^make ([a-z]+)", code, re.MULTILINE))
    assert mentioned <= targets
    contributing = set(re.findall(r"^make ([a-z]+)", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    assert contributing == targets - {"help"}


def test_every_dependency_has_its_reason_and_every_reason_its_dependency() -> None:
    extras = PROJECT["optional-dependencies"].values()
    required = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    declared = {re.split(r"[<>=!~;\[ ]", line)[0] for line in required} - {"cudaforge"}  # an extra of its own
    text = (ROOT / "docs" / "dependencies.md").read_text().split("## Tools outside Python")[0]
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|", text, re.MULTILINE)) == declared


def test_evaluator_requirements_are_a_part_of_the_projects_own() -> None:
    lines = (ROOT / "requirements-evaluator.txt").read_text().splitlines()
    assert {line for line in lines if line and not line.startswith("#")} <= set(PROJECT["dependencies"])


def test_every_dependency_of_the_run_is_imported_somewhere() -> None:
    modules = {"apache-tvm-ffi": "tvm_ffi", "nvidia-ml-py": "pynvml", "langgraph-checkpoint-sqlite": "langgraph"}
    imported = {name.split(".")[0] for path in _modules() for name in _imports(path)}
    # ninja is a program, run by torch; the other two are loaded by uvicorn, which is told their names.
    needed = {re.split(r"[<>=]", line)[0] for line in PROJECT["dependencies"]} - {"ninja", "uvloop", "httptools"}
    assert {modules.get(name, name.replace("-", "_")) for name in needed} <= imported


def test_the_architecture_names_every_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    packages = [f"{package}/" for package in PACKAGES]
    packages += [f"cudaforge/{path.parent.name}/" for path in (ROOT / "cudaforge").glob("*/__init__.py")]
    assert not [package for package in packages if f"`{package}`" not in text]


def test_the_graph_in_the_architecture_is_the_graph_in_the_code() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text().split("stateDiagram-v2")[1].split("```")[0]
    drawn = set(re.findall(r"^ +(\w+|\[\*\]) --> (\w+|\[\*\])", text, re.MULTILINE))
    script = (
        "from cudaforge.graph import build; from cudaforge.nodes import Nodes\n"
        "nodes = Nodes.__new__(Nodes); nodes.journal = None  # the shape alone is asked for\n"
        "print([(e.source, e.target) for e in build(nodes, None).get_graph().edges])"
    )
    star = {"__start__": "[*]", "__end__": "[*]"}
    built = {(star.get(a, a), star.get(b, b)) for a, b in ast.literal_eval(_python(script))}
    assert drawn == built


def test_the_changelog_starts_with_what_is_unreleased() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert all(re.match(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d$", heading) for heading in headings[1:])


def test_the_version_is_written_the_same_in_both_places() -> None:
    assert _python("import cudaforge; print(cudaforge.__version__)") == PROJECT["version"]


# -- containers -------------------------------------------------------------------------------------------------


def test_compose_builds_stages_that_the_dockerfile_has() -> None:
    compose = _compose()
    assert set(compose["services"]) == {"service", "worker", "evaluator", "cli"}
    assert {service["build"]["target"] for service in compose["services"].values()} == set(_stages()) - {"wheel"}
    named = {v.split(":")[0] for s in compose["services"].values() for v in s["volumes"]}
    assert {name for name in named if not name.startswith(".")} == set(compose["volumes"])


def test_containers_run_commands_that_exist_with_their_options() -> None:
    """Those of compose.yaml and the Dockerfile, and those that the comments of compose.yaml show."""
    words = [s["command"] for s in _compose()["services"].values() if "command" in s]
    words += [json.loads(stage["CMD"]) for name, stage in _stages().items() if name != "wheel"]
    comments = re.sub(r" \\\n#", "", (ROOT / "compose.yaml").read_text())
    shown = re.findall(
        r"docker compose run(?: --rm| --env \S+)* (service|cli) (.+?)(?:  +#.*)?$", comments, re.MULTILINE
    )
    assert len(shown) >= 3
    for command in [*words, *(line.split() for _, line in shown)]:
        assert all(isinstance(word, str) for word in command)  # YAML reads `--model=manual:` as a mapping
        name = "" if command[0].startswith("--") else command[0]
        assert {word.split("=")[0] for word in command if word.startswith("--")} <= _commands()[name]


def test_no_container_has_more_rights_than_it_needs() -> None:
    for name, service in _compose()["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["init"] is True, name
        assert not {"privileged", "cap_add", "user", "pid", "ipc", "devices"} & set(service), name
    for name, stage in _stages().items():
        assert name == "wheel" or stage["USER"] == "cudaforge", name
    assert (ROOT / "Dockerfile").read_text().count("useradd --create-home --uid 10001 cudaforge") == 2


def test_the_service_is_published_on_loopback_alone_and_candidates_have_no_network() -> None:
    services = _compose()["services"]
    assert {name: s["ports"] for name, s in services.items() if "ports" in s} == {"service": ["127.0.0.1:8000:8000"]}
    assert services["evaluator"]["network_mode"] == "none"
    assert not [name for name, s in services.items() if name != "evaluator" and "network_mode" in s]
    assert {name for name, s in services.items() if "home:/data" in s["volumes"]} == {"service", "worker", "cli"}
    # Whoever holds a token of the service has no kernel executed but by the evaluator.
    offered = [word for word in services["service"]["command"] if word.startswith("--evaluator")]
    assert offered == ["--evaluator=spool:/spool"]
    assert {name for name, s in services.items() if "spool:/spool" in s["volumes"]} == {"worker", "evaluator", "cli"}


def test_no_secret_stands_in_compose_or_the_dockerfile() -> None:
    """Keys are passed through from the shell, and never to where candidates run."""
    services = _compose()["services"]
    passed = {name: s["environment"] for name, s in services.items() if "environment" in s}
    key = dict.fromkeys(("OPENAI_API_KEY", "OPENAI_BASE_URL"))
    assert passed == {"service": key, "worker": key, "cli": key}
    secret = r"\bsk-\w|\bcf_\w|(?i:key|token|password|secret)(?:=\S|: *[^\s#])"
    assert not [name for name in ("compose.yaml", "Dockerfile") if re.search(secret, (ROOT / name).read_text())]


def test_containers_get_the_time_that_draining_takes() -> None:
    from cudaforge.worker import DRAIN_S
    from cudaforge_api.serve import SHUTDOWN_S

    services = _compose()["services"]
    grace = {name: int(s["stop_grace_period"].removesuffix("s")) for name, s in services.items() if name != "cli"}
    assert grace["worker"] >= DRAIN_S + 10
    assert grace["service"] >= SHUTDOWN_S + 10
    assert {s["restart"] for name, s in services.items() if name != "cli"} == {"unless-stopped"}
    assert "--workers=0" in services["service"]["command"]
    assert services["worker"]["depends_on"] == {"service": {"condition": "service_healthy"}}


def test_images_with_a_health_check_are_those_of_service_and_evaluator() -> None:
    """Nothing else serves; a worker must not have the service's check."""
    assert {name for name, stage in _stages().items() if "HEALTHCHECK" in stage} == {"service", "evaluator"}
    assert not [name for name, s in _compose()["services"].items() if "healthcheck" in s]


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_of_the_service_follows_its_answer(status: int, healthy: bool) -> None:
    asked = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        check = _health_check("service", "127.0.0.1:8000", f"127.0.0.1:{server.server_port}")
        proxy = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
        done = subprocess.run(check, env=os.environ | proxy, capture_output=True, check=False)
        server.shutdown()
    assert (done.returncode == 0) is healthy
    assert asked == ["/api/v1/health"]
    assert asked[0] in json.loads((ROOT / "docs" / "openapi.json").read_text())["paths"]


def test_the_health_check_of_the_evaluator_follows_its_own_heartbeat(tmp_path: Path) -> None:
    from cudaforge.engine.spool_files import Heartbeat, Spool

    check = _health_check("evaluator", "/spool", str(tmp_path))

    def healthy() -> bool:
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        assert not done.stderr
        return done.returncode == 0

    assert not healthy()
    spool = Spool(tmp_path)
    spool.create()
    spool.beat("another", Heartbeat(lease_s=90, host="not-this-host"))
    assert not healthy()
    spool.beat("this", Heartbeat(lease_s=90, host=socket.gethostname()))
    assert healthy()
    late = time.time() - 91
    os.utime(spool.evaluators / "this.json", (late, late))
    assert not healthy()


def test_the_images_copy_only_files_that_reach_the_builder() -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert not [name for name in let_through if not (ROOT / name).exists()]
    copied = re.findall(r"^COPY (?!--from|\. )(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {name for line in copied for name in line.split()} <= let_through


def test_docker_accepts_compose() -> None:
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not here")
    done = subprocess.run(
        [docker, "compose", "config", "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# -- helpers ----------------------------------------------------------------------------------------------------


def _python(script: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _compose() -> dict[str, Any]:
    return cast(dict[str, Any], yaml.safe_load((ROOT / "compose.yaml").read_text()))


def _stages() -> dict[str, dict[str, str]]:
    """Stages of the Dockerfile: the last of each instruction, with what a stage has from the one it begins with."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", "")
    stages: dict[str, dict[str, str]] = {}
    for line in filter(None, text.splitlines()):
        instruction, rest = line.split(None, 1)
        if instruction == "FROM":
            base, _, name = rest.split()
            stages[name] = dict(stages.get(base, {}))
        else:
            stages[name][instruction] = rest
    return stages


def _health_check(stage: str, there: str, here: str) -> list[str]:
    """The command of an image's health check, with this interpreter and `here` in place of `there`."""
    python, *arguments = json.loads(_stages()[stage]["HEALTHCHECK"].split(" CMD ")[1])
    assert python == "python"
    assert there in arguments[-1]
    return [sys.executable, *arguments[:-1], arguments[-1].replace(there, here)]


def _place_in_wheel(name: str) -> str:
    top, rest = name.split("/", 1)
    return name if top == "cudaforge" else f"cudaforge/demo_data/{rest}" if top == "examples" else rest


def _modules() -> list[Path]:
    """Source files of the four packages."""
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def _source_of(module: str) -> Path | None:
    for root in SOURCE_ROOTS:
        base = root.joinpath(*module.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


def _imports(path: Path) -> set[str]:
    """Absolute names that a file imports at run time, wherever the import stands."""
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped.update(child for statement in node.body for child in ast.walk(statement))
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{a.name}" for a in node.names if _source_of(f"{node.module}.{a.name}"))
    return names


def _code(text: str) -> list[str]:
    """Lines of fenced shell blocks and pieces of inline code."""
    fenced = re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in fenced for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [*lines, *(piece.replace("\n", " ") for piece in re.findall(r"`([^`]+)`", prose))]


def _documented_commands(text: str) -> list[tuple[str, set[str]]]:
    """(command, options) of each `cudaforge COMMAND ...` in code; a bare `cudaforge` has the command ''."""
    found = []
    for line in _code(text):
        match = re.match(r"(?:\S*/)?cudaforge(?: ([a-z]\w*))?((?: .*)?)$", line.split("#")[0].strip())
        if match and "/" not in (match.group(1) or ""):
            found.append((match.group(1) or "", set(re.findall(r"(?<!\S)--[a-z-]+", match.group(2)))))
    return found


@cache
def _commands() -> dict[str, set[str]]:
    """Options of each command of the command line."""
    from typer.main import get_command

    from cudaforge.cli.app import app

    root = get_command(app)
    leaves = {name: getattr(c, "commands", {"": c}).values() for name, c in root.commands.items()}
    known = {
        name: {o for command in found for p in command.params for o in p.opts + p.secondary_opts}
        for name, found in leaves.items()
    }
    known[""] = {o for p in root.params for o in p.opts}
    return {name: options | {"--help"} for name, options in known.items()}
