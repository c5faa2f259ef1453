"""The structure of the package: rooms in order, no circles, small files, nothing but commands at the top."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import stvideo

HOUSE = Path(stvideo.__file__).parent
ROOMS = (  # from the top down: a room knows nothing of those above it
    *("study", "training", "evaluation", "inference", "drawing", "benchmarks", "diagnosis", "preparation"),
    *("runtime", "dense", "weights", "models", "reduction", "data", "settings", "core"),
)
DATA_ROOMS = ("loading", "lists", "clips", "video")
COMMANDS = {"train", "evaluate", "compare", "predict", "visualize", "benchmark", "convert", "doctor"}


def modules():
    return {".".join(path.relative_to(HOUSE.parent).with_suffix("").parts): path for path in HOUSE.rglob("*.py")}


def imports(path, only_when_loaded=False):
    """Dotted names of the package's modules that a file imports, with the lines; TYPE_CHECKING blocks count not."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    nodes = ast.walk(tree)
    if only_when_loaded:
        nodes = (
            node for top in tree.body if not isinstance(top, ast.FunctionDef | ast.ClassDef) for node in ast.walk(top)
        )
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "stvideo":
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "stvideo":
                    yield alias.name, node.lineno


def room(name):
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else None


def test_a_room_knows_nothing_of_the_rooms_above_it():
    wrong = []
    for name, path in modules().items():
        own = room(name)
        if own is None:
            continue
        for target, line in imports(path):
            other = room(target)
            is_command = other is None and target.split(".")[1:2] != [] and target.split(".")[1] in COMMANDS
            if is_command or (other is not None and ROOMS.index(other) < ROOMS.index(own)):
                wrong.append(f"{path}:{line}: {own} imports {target}")
            if own == other == "data":
                parts = [n.split(".")[2] for n in (name, target)]
                if all(p in DATA_ROOMS for p in parts) and DATA_ROOMS.index(parts[1]) < DATA_ROOMS.index(parts[0]):
                    wrong.append(f"{path}:{line}: {name} imports {target}")
    assert wrong == []


def test_no_circles():
    found = modules()
    graph = {name: set() for name in found}
    for name, path in found.items():
        for target, _ in imports(path, only_when_loaded=True):
            module = target if target in found else target.rpartition(".")[0]
            if module in found and module != name:
                graph[name].add(module)
    assert list(TopologicalSorter(graph).static_order())


def test_nothing_but_commands_at_the_top():
    assert {path.stem for path in HOUSE.glob("*.py")} == COMMANDS | {"__init__", "__main__"}
    assert {path.name for path in HOUSE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(ROOMS)


def test_files_are_small_and_types_are_checked():
    paths = [*HOUSE.rglob("*.py"), *(HOUSE.parent / "data_tools").glob("*.py")]
    sizes = {path: len(path.read_text().splitlines()) for path in paths}
    assert {str(path): size for path, size in sizes.items() if size > 350} == {}
    assert sum(path.read_text().count("type: ignore") for path in paths) < 15
