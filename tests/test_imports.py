"""Imports run one way, and importing the predictor stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("sparse_core", "limtr", "preprocessing", "evaluation", "training")
ALLOWED = {
    "sparse_core": {"sparse_core"},
    "limtr": {"limtr"},
    "preprocessing": {"preprocessing", "limtr"},
    "evaluation": {"evaluation", "preprocessing", "limtr", "sparse_core"},
    "training": {"training", "evaluation", "preprocessing", "limtr", "sparse_core"},
}
HEAVY = ("ray", "open3d", "tensorflow_datasets", "matplotlib", "array_record", "sklearn", "pyarrow", "tensorflow", "onnx",
         "onnxscript", "onnxruntime")  # fmt: skip


def imported_roots(file: Path) -> set[str]:
    roots: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            roots.add((node.module or "").split(".")[0])
    return roots


def imported_modules(file: Path) -> set[str]:
    """Full names of everything imported: modules, and what is taken out of them."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return modules | {name.rpartition(".")[0] for name in modules}


def files_of(room: str) -> list[Path]:
    files = sorted((ROOT / room).rglob("*.py"))
    return [file for file in files if file.relative_to(ROOT) != Path("limtr/cli.py")]


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_the_rooms_below_them(room: str) -> None:
    for file in files_of(room):
        wrong = (imported_roots(file) & set(ROOMS)) - ALLOWED[room]
        assert not wrong, f"{file} imports {sorted(wrong)}"


def test_sparse_core_imports_torch_and_the_standard_library_only() -> None:
    allowed = set(sys.stdlib_module_names) | {"torch", "sparse_core"}
    drawing = ROOT / "sparse_core" / "family" / "plotting.py"  # pictures of the studies, drawn with an extra
    for file in files_of("sparse_core"):
        assert imported_roots(file) <= (allowed | {"matplotlib"} if file == drawing else allowed), file


ORACLE_SCRIPTS = ROOT / "evaluation" / "oracle_scripts"  # run by another interpreter, in a process of their own


def test_the_product_never_imports_tensorflow() -> None:
    for room in ROOMS:
        for file in files_of(room):
            if file.parent != ORACLE_SCRIPTS:
                assert not {"tensorflow", "waymo_open_dataset"} & imported_roots(file), file


def test_the_scripts_of_the_oracle_environment_know_nothing_of_the_product_and_nothing_imports_them() -> None:
    allowed = set(sys.stdlib_module_names) | {"numpy", "tensorflow", "waymo_open_dataset"}
    scripts = sorted(ORACLE_SCRIPTS.glob("*.py"))
    assert len(scripts) > 1
    for script in scripts:
        assert imported_roots(script) <= allowed, script
    for room in ROOMS:
        for file in files_of(room):
            assert "evaluation.oracle_scripts" not in imported_modules(file), file


@pytest.mark.parametrize(
    "module",
    [
        "limtr",
        "limtr.predictor",
        "limtr.cli",
        "preprocessing.shards",
        "training.train",
        "sparse_core",
        "sparse_core.family.set_mlp",
    ],
)
def test_importing_loads_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def test_every_verb_names_a_module_with_its_options_and_run() -> None:
    from importlib import import_module

    from limtr.cli import VERBS

    for name, verb in VERBS.items():
        module = import_module(verb.module)
        assert hasattr(module, verb.config), name
        assert callable(getattr(module, verb.run)), name
