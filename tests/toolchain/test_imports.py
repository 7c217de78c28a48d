"""The rules of the house, read from the source itself: who may import whom, and how large anything may grow."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[2]
HOST, DEVICE = ROOT / "toolchain" / "edgemask", ROOT / "runtime" / "edgemask_runtime"
MODULES = sorted([*HOST.rglob("*.py"), *DEVICE.rglob("*.py")])
SOURCES = sorted(path for name in ("examples", "benchmarks", "tests") for path in (ROOT / name).rglob("*.py"))

SHARED = {
    *"answers archive bundle detections engines entropy errors files formats images keys labels manifest".split(),
    *"install moments predictor probe release strict_json timing trust".split(),
}
"""What the toolchain may take from the runtime."""
NEVER_ON_THE_DEVICE = {"edgemask", "onnx", "tensorflow", "torch", "typer", "flatbuffers"}
LAZY = {
    "tensorflow",
    "torch",
    "tf2onnx",
    "keras",
    "foolbox",
    "litert_quantizer",
    "PIL",
    "av",
    "paho",
    "can",
    "cantools",
}
ON_DEMAND = {
    "toolchain/edgemask/ops/torch.py": {"torch"},
    "toolchain/edgemask/auditing/": {"torch", "PIL"},
    "runtime/edgemask_runtime/sinks/mqtt": {"paho"},
    "runtime/edgemask_runtime/sinks/can": {"can", "cantools"},
}
"""Modules for whoever has a heavy package, and folders of them; nothing else imports them but in a function."""
LIGHT = tuple(f"edgemask.auditing.{name}" for name in ("finding", "policy", "threat", "verdict"))
"""What recipes and builds read of an audit."""
LAYERS = [
    "ops",
    "frame",
    "masks",
    "detectors",
    "ensembles",
    "rewrites",
    "outputs",
    "models",
    "conversion",
    "auditing",
    "device",
    "metrics",
    "quantisation",
    "releasing",
    "wheels",
]
BELOW = {
    "metrics": set("recipe baking bundle verification measurement cli".split()),
    "ops": {"frame", "masks", "detectors", "ensembles", "outputs", "models", "chain", "steps", "model_input"},
    "frame": {"masks", "detectors", "ensembles", "outputs", "models", "chain"},
    "masks": {"frame", "detectors", "ensembles", "outputs", "models", "chain"},
    "detectors": {"frame", "masks", "ensembles", "outputs", "models", "chain"},
    "ensembles": {"frame", "masks", "detectors", "outputs", "models", "chain"},
    "rewrites": {"frame", "masks", "detectors", "ensembles", "outputs", "models", "chain"},
    "outputs": {"frame", "masks", "detectors", "ensembles", "models", "chain"},
    "models": set("frame masks detectors ensembles rewrites outputs recipe baking parity proof bundle".split()),
    "auditing": {"cli", "bundle", "listing"},
    "device": set("cli recipe suggest baking masks auditing quantisation conversion".split()),
    "releasing": set("recipe suggest baking masks auditing quantisation conversion metrics cli listing".split()),
    "wheels": set("recipe baking bundle releasing device cli listing".split()),
    "quantisation": set("masks detectors ensembles rewrites outputs baking bundle verification listing cli".split()),
    "conversion": set("frame masks detectors ensembles rewrites outputs recipe suggest baking bundle".split()),
}
"""What each folder of the toolchain must not know."""
FORMATS = {"onnx", "onnxruntime", "ai_edge_litert", "flatbuffers", "google"}
MAX_FUNCTION_LINES, MAX_FILE_LINES = 80, 600


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def at_fault(paths: list[Path], faults: Callable[[Path], object]) -> dict[str, object]:
    """What is wrong in each file, of those where anything is."""
    # Why not a test for each file: they are thousands, and a test costs more than a look at a file.
    return {shown(path): found for path in paths if (found := faults(path))}


def imports(path: Path, *, top_level: bool = False) -> Iterator[str]:
    """Every module that a file imports, by its full name; with `top_level` only those that importing it imports."""
    for node in _nodes(parsed(path), top_level=top_level):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _nodes(tree: ast.AST, *, top_level: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        inner = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_for_types(node)
        if not (top_level and inner):
            yield node
            yield from _nodes(node, top_level=top_level)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def first(name: str) -> str:
    return name.split(".")[0]


def test_the_device_never_imports_the_toolchain() -> None:
    def taken(path: Path) -> set[str]:
        return {first(name) for name in imports(path)} & NEVER_ON_THE_DEVICE

    assert at_fault(sorted(DEVICE.rglob("*.py")), taken) == {}


def test_the_toolchain_takes_only_the_runtimes_contracts() -> None:
    def taken(path: Path) -> set[str]:
        names = [name for name in imports(path) if name.startswith("edgemask_runtime.")]
        return {name.split(".")[1] for name in names} - SHARED

    assert at_fault(sorted(HOST.rglob("*.py")), taken) == {}


def test_heavy_packages_are_imported_where_they_are_needed() -> None:
    def taken(path: Path) -> set[str]:
        homes = {} if shown(path).removesuffix(".py").replace("/", ".").endswith(LIGHT) else ON_DEMAND
        allowed = set().union(*(packages for home, packages in homes.items() if shown(path).startswith(home)))
        return {first(name) for name in imports(path, top_level=True)} & LAZY - allowed

    assert at_fault(MODULES, taken) == {}


def test_nothing_imports_what_is_imported_on_demand() -> None:
    on_demand = tuple(name.partition("/")[2].removesuffix(".py").replace("/", ".") for name in ON_DEMAND)

    def taken(path: Path) -> list[str]:
        names = [name for name in imports(path, top_level=True) if not name.startswith(LIGHT)]
        return [name for name in names if name.startswith(on_demand)]

    assert at_fault([path for path in MODULES if not shown(path).startswith(tuple(ON_DEMAND))], taken) == {}


def test_nothing_imports_the_command_line() -> None:
    def taken(path: Path) -> list[str]:
        return [name for name in imports(path) if name.startswith("edgemask.cli")]

    assert at_fault([path for path in MODULES if path.name != "__main__.py"], taken) == {}


@pytest.mark.parametrize("folder", LAYERS)
def test_layers_know_nothing_of_those_above(folder: str) -> None:
    for path in (HOST / folder).rglob("*.py"):
        known = {name.split(".")[1] for name in imports(path) if first(name) == "edgemask" and "." in name}
        assert not known & BELOW[folder], shown(path)


@pytest.mark.parametrize("folder", ["frame", "masks", "detectors", "ensembles", "outputs"])
def test_a_step_knows_no_format(folder: str) -> None:
    for path in (HOST / folder).rglob("*.py"):
        names = set(imports(path))
        assert not {first(name) for name in names} & FORMATS, shown(path)
        lowered = ("edgemask.ops.onnx", "edgemask.ops.tflite", "edgemask.ops.numpy", "edgemask.ops.torch")
        assert not [name for name in names if name.startswith(lowered)], shown(path)


def test_the_layers_are_all_there_are() -> None:
    folders = {path.name for path in HOST.iterdir() if (path / "__init__.py").is_file()}
    assert folders == set(LAYERS)


def test_targets_are_data() -> None:
    assert not list((ROOT / "targets").rglob("*.py"))


@pytest.mark.parametrize(("home", "config"), [(HOST, "pyproject.toml"), (DEVICE, "runtime/pyproject.toml")])
def test_every_folder_of_code_is_packaged(home: Path, config: str) -> None:
    stated = set(tomllib.loads((ROOT / config).read_text())["tool"]["setuptools"]["packages"])
    found = {".".join(path.parent.relative_to(home.parent).parts) for path in home.rglob("*.py")}
    assert found <= stated
    assert stated - found <= {"edgemask.targets"}
    assert all((home.parent / name.replace(".", "/") / "__init__.py").is_file() for name in found)


def test_functions_and_files_stay_small() -> None:
    def too_large(path: Path) -> list[str]:
        functions = [
            node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        large = [node for node in functions if (node.end_lineno or node.lineno) - node.lineno >= MAX_FUNCTION_LINES]
        whole = ["the file"] if len(path.read_text().splitlines()) > MAX_FILE_LINES else []
        return whole + [node.name for node in large]

    assert at_fault([*MODULES, *SOURCES], too_large) == {}


def test_the_light_core_has_no_framework() -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert not [line for line in stated if line.startswith(("tensorflow", "torch", "keras"))]
    assert not {"tensorflow", "torch"} & sys.modules.keys()


def test_the_rules_see_what_they_forbid(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("import torch.nn\ndef f():\n    from PIL import Image\nif True:\n    import av\n")
    assert set(imports(path)) == {"torch.nn", "PIL.Image", "av"}
    assert set(imports(path, top_level=True)) == {"torch.nn", "av"}
