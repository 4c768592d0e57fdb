"""The shape of the code: strata, sizes, and what every file owes its reader."""

import ast
import gc
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

from controlplane.cli import app
from controlplane.telemetry import Metrics

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "controlplane"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
MAX_LINES = 480
MAX_FUNCTION_LINES = 60
LONG_FUNCTIONS = {
    ("controlplane/runtime/wiring.py", "build"): "joins everything, once; cutting it up would only hide the order",
    ("controlplane/telemetry.py", "__init__"): "a table of metrics",
    ("controlplane/cli/plane.py", "serve"): "a table of options",
    ("controlplane/store/migrations/versions/0001_first.py", "upgrade"): "a table of tables",
}
NOT_OURS = {".git", ".venv", "__pycache__", "build", "run", ".mypy_cache", ".ruff_cache", ".pytest_cache",
            ".hypothesis", ".import_linter_cache"}  # fmt: skip


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    """Parse a file, while no garbage of other tests is collected.

    What writes a traceback when it is collected parses lines of it, and Python 3.11 cannot parse while it parses
    (https://github.com/python/cpython/issues/106905).
    """
    text = path.read_text(encoding="utf-8")
    gc.disable()
    try:
        return ast.parse(text)
    finally:
        gc.enable()


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def ours() -> list[Path]:
    """Return every file that git keeps, or would keep."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return [path for line in done.stdout.splitlines() if (path := ROOT / line).is_file()]
    return [p for p in ROOT.rglob("*") if p.is_file() and not NOT_OURS & set(p.relative_to(ROOT).parts)]


def test_the_import_contracts_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_no_file_is_too_long() -> None:
    lengths = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}


def test_no_function_is_too_long() -> None:
    long = {}
    for path in MODULES:
        for function in functions(path):
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if lines > MAX_FUNCTION_LINES and (name(path), function.name) not in LONG_FUNCTIONS:
                long[f"{name(path)}:{function.lineno} {function.name}"] = lines
    assert long == {}


def test_every_module_says_what_it_is() -> None:
    silent = [name(path) for path in MODULES if not (ast.get_docstring(tree(path)) or "").strip()]
    assert silent == []


def test_our_own_code_is_never_imported_inside_a_function_outside_the_command_line() -> None:
    inside = []
    for path in MODULES:
        if path.is_relative_to(PACKAGE / "cli") or path.is_relative_to(PACKAGE / "target"):
            continue  # Commands import what they need when they are called; the fleet keeps torch out of its parent.
        for function in functions(path):
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("controlplane"):
                    inside.append(f"{name(path)}:{node.lineno}")
    assert inside == []


def test_nothing_is_left_to_do_later() -> None:
    words = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|X" r"XX)\b")
    found = []
    for path in ours():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{name(path)}:{n}" for n, line in enumerate(text.splitlines(), 1) if words.search(line)]
    assert found == []


def commands() -> set[str]:
    """Return every command a person can type after `controlplane`."""
    root = typer.main.get_command(app)
    found = set()
    for word, command in getattr(root, "commands", {}).items():
        found.add(word)
        found |= {f"{word} {sub}" for sub in getattr(command, "commands", {})}
    return found


DOCUMENTS = [path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if path.exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_only_commands_that_there_are(document: Path) -> None:
    known, groups = commands(), {c.split()[0] for c in commands() if " " in c}
    typed = re.findall(r"(?:^|[`$ ])controlplane ([a-z]+)(?: ([a-z]+))?(?=[\s`<\[]|$)", code_of(document), re.MULTILINE)
    assert typed or document.name != "README.md"
    assert {f"{a} {b}" if a in groups and b else a for a, b in typed} - known == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_only_make_targets_that_there_are(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    typed = set(re.findall(r"\bmake ([a-z]+)\b", code_of(document)))
    assert typed - targets == set()


def code_of(document: Path) -> str:
    """Return what a document sets as code: its fenced blocks and its `inline` words."""
    text = document.read_text(encoding="utf-8")
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```[^\n]*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*fenced, *re.findall(r"`([^`\n]+)`", rest)])


def test_every_metric_of_ours_explains_itself_in_a_sentence() -> None:
    own = [family for family in Metrics().registry.collect() if family.name.startswith("controlplane_")]
    assert len(own) > 10
    assert [family.name for family in own if not re.fullmatch(r"[A-Z0-9].{15,}\.", family.documentation)] == []


def test_every_metric_of_ours_has_the_unit_in_its_name_that_its_kind_calls_for() -> None:
    own = [family for family in Metrics().registry.collect() if family.name.startswith("controlplane_")]
    assert [f.name for f in own if f.type == "histogram" and not f.name.endswith("_seconds")] == []
    assert [f.name for f in own if re.search(r"_(?:ms|millis|minutes|percent)(?:_|$)", f.name)] == []


def test_every_metric_of_ours_is_used_by_a_name_that_is_asked_for_in_the_code() -> None:
    """A field of `Metrics` that nobody sets is a series that never comes."""
    code = "\n".join(p.read_text(encoding="utf-8") for p in MODULES if p.name != "telemetry.py")
    fields = [field for field in vars(Metrics()) if field != "registry"]
    assert [field for field in fields if not re.search(rf"\bmetrics\.{field}\b", code)] == []
