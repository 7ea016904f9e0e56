"""What an import loads, who imports whom, and what the public list promises."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import tal_postproc

PACKAGE = Path(tal_postproc.__file__).parent
HEAVY = ("torch", "highspy", "scipy.optimize", "pandas", "matplotlib", "triton", "ray", "pyarrow", "optuna")

# A file imports from lower floors only.  Within floor 0, the checkers lie below the types and settings.
FLOORS = {
    "_checks": 0.0,
    "_files": 0.0,
    "types": 0.1,
    "config": 0.1,
    "_kernels": 1,
    "_threads": 1,
    "_fields": 1,
    "_npy": 1,
    "_lp": 1,
    "_unpickle": 1,
    "_regions": 1,
    "overlap": 2,
    "proposals": 2,
    "suppression": 2,
    "fusion": 2,
    "linpro": 2,
    "evaluation": 2,
    "pseudo_labels": 2,
    "refinement": 2.1,
    "bootstrap": 2.1,
    "label_bank": 2,
    "presets": 3,
    "_signals": 3,
    "_stages": 3.1,
    "tracing": 3.15,
    "_tcam_files": 2.9,
    "formats": 3,
    "synthetic": 3,
    "pipeline": 3.2,  # signals in, stages, segments out
    "_label_folder": 3,
    "refresh": 4,
    "plotting": 4,
    "distributed": 4.1,
    "_jobs": 4,
    "torch.types": 4.0,
    "torch._bridge": 4.05,
    "torch._ragged": 4.0,
    "torch.losses": 4.0,
    "torch._batched": 4.1,
    "torch._sequences": 4.1,
    "torch._simplex": 4.1,
    "torch._triton": 4.15,
    "torch.functions": 4.2,
    "torch.labels": 4.25,
    "torch.linpro": 4.3,
    "torch.pipeline": 4.4,
    "torch": 4.9,  # its public list
    "diagnosis": 4.5,
    "tuning": 4.5,
    "compat": 5,
    "examples": 5,
    "cli": 6,
    "": 7,  # the public list
}
ROOMS = {
    "numba": ("_kernels",),
    "highspy": ("_lp",),
    "torch": ("torch", "compat", "examples"),
    "triton": ("torch",),
    "matplotlib": ("plotting",),
    "ray": ("distributed",),
    "pyarrow": ("distributed",),
    "optuna": ("tuning",),
}


@cache
def modules() -> dict[str, ast.Module]:
    """Dotted name below the package -> syntax tree."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


def imported(name: str, tree: ast.Module) -> set[str]:
    """Absolute dotted names of what a module imports, wherever in the file."""
    package = PACKAGE / name.replace(".", "/")
    depth = len(name.split(".")) - (0 if package.is_dir() else 1) if name else 0
    base = ["tal_postproc", *name.split(".")][: depth + 1]
    out: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = base[: len(base) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            out |= {source} if node.module else {f"{source}.{alias.name}" for alias in node.names}
    return out


def loaded_by(code: str) -> set[str]:
    """Which of the heavy modules a fresh process has loaded after `code`."""
    script = f"{code}\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(ast.literal_eval(done.stdout.strip().splitlines()[-1]))


def test_the_import_is_light():
    assert loaded_by("import tal_postproc, tal_postproc.cli, tal_postproc.distributed, tal_postproc.plotting") == set()


def test_the_test_above_can_fail():
    assert loaded_by("import tal_postproc, scipy.optimize") == {"scipy.optimize"}


def room_of(name: str) -> str:
    """The room of a dotted name below the package; every file of the torch package is one."""
    parts = [*name.split("."), "", ""]
    return ".".join(parts[:2]) if (PACKAGE / "torch" / f"{parts[1]}.py").exists() and parts[0] == "torch" else parts[0]


def test_floors():
    names = modules()
    assert set(FLOORS) >= {room_of(name) for name in names}, "a new file needs a floor"
    for name, tree in names.items():
        room = room_of(name)
        for target in imported(name, tree):
            if not target.startswith("tal_postproc"):
                continue
            other = room_of(target.removeprefix("tal_postproc").lstrip("."))
            if other.startswith("__"):
                continue
            assert other == room or FLOORS[other] < FLOORS[room], f"{name or 'the package'} imports {target}"


def test_every_dependency_has_its_room():
    for name, tree in modules().items():
        for target in imported(name, tree):
            rooms = ROOMS.get(target.split(".")[0])
            assert rooms is None or name.split(".")[0] in rooms, f"{name} imports {target}"


@pytest.mark.parametrize("name", sorted(modules()))
def test_every_module_has_a_docstring_and_no_assert(name):
    tree = modules()[name]
    assert ast.get_docstring(tree)
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]


def test_no_comparison_is_thrown_away():
    """A bare ``np.allclose(a, b)`` in a test compares nothing."""
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                name = getattr(node.value.func, "attr", getattr(node.value.func, "id", ""))
                assert name not in {"allclose", "array_equal", "isclose", "all", "any"}, f"{path.name}:{node.lineno}"


def test_the_public_list_resolves():
    assert len(set(tal_postproc.__all__)) == len(tal_postproc.__all__)
    for name in tal_postproc.__all__:
        assert getattr(tal_postproc, name).__doc__, name
