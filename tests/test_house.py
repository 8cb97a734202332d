"""The rules of the house: packages and their imports, thin experiments, plain docstrings, tests in mirrored folders.

Each rule is a function of a checkout's folder, so that a test can also see it fail where it is broken.
"""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = (
    ("types", "errors", "arrays", "bits", "files", "figures", "memory", "pictures", "progress", "steps", "untrusted"),
    ("config",),
    ("animation", "dct", "run_folder", "schedules", "sde", "sharding", "sigmas"),
    ("reverse", "nn"),
    ("models",),
    ("objectives",),
    ("samplers",),
    ("convert",),
    ("data",),
    ("metrics",),
    ("edit",),
    ("train",),
    ("recipes",),
    ("app",),
)
"""From the ground up; a package imports only from floors below its own, or from modules on it."""
LEVEL = {name: i for i, floor in enumerate(FLOORS) for name in floor}
EXPERIMENT_LINES, BUILD_LINES = 120, 20
LAZY_IN_PACKAGE = 10


def sources(root: Path) -> dict[str, Path]:
    """Module name -> file, of jgen and the experiments."""
    files = sorted([*root.glob("jgen/**/*.py"), *root.glob("experiments/*.py")])
    return {".".join(f.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def imported(tree: ast.AST, known: set[str]) -> set[str]:
    """The known modules that a file imports, those for type checking counted, those inside functions not."""
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)) for n in ast.walk(f)}
    found = set()
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {
                f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in known else node.module or "" for a in node.names
            }
    return found & known


def graph(root: Path) -> dict[str, set[str]]:
    files = sources(root)
    return {name: imported(ast.parse(f.read_text()), set(files)) - {name} for name, f in files.items()}


def package(module: str) -> str:
    """The part of jgen that a module stands in: config, train, types, ..."""
    return module.split(".")[1] if module.startswith("jgen.") else module.split(".")[0]


def floors(root: Path) -> list[str]:
    """Imports of a floor above one's own, and packages that stand on none."""
    bad = []
    for name, targets in graph(root).items():
        if name in ("jgen", "jgen.__main__") or name.startswith("experiments"):
            continue
        own = package(name)
        if own not in LEVEL:
            bad.append(f"{name}: {own} has no floor")
            continue
        for target in targets - {"jgen"}:
            other = package(target)
            if other != own and LEVEL.get(other, len(FLOORS)) > LEVEL[own] and not target.startswith("experiments"):
                bad.append(f"{name} imports {target}")
    return bad


def circles(root: Path) -> list[str]:
    """Modules that can be reached from themselves."""
    edges, bad = graph(root), []
    for start in edges:
        reached, todo = set(), list(edges[start])
        while todo:
            at = todo.pop()
            if at not in reached:
                reached.add(at)
                todo += edges.get(at, set())
        bad += [start] if start in reached else []
    return bad


def experiments_of_experiments(root: Path) -> list[str]:
    """Experiments that import another, and recipes that import one."""
    return [
        f"{name} imports {target}"
        for name, targets in graph(root).items()
        for target in targets
        if target.startswith("experiments.") and not name.startswith("jgen.app")
    ]


def _functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def lazy_imports(root: Path) -> list[str]:
    """Imports inside functions, but for an experiment's build and published; of jgen, all beyond the ten it may have."""
    own, bad = [], []
    for name, file in sources(root).items():
        for function in _functions(ast.parse(file.read_text())):
            found = [n for n in ast.walk(function) if isinstance(n, (ast.Import, ast.ImportFrom))]
            if name.startswith("jgen"):
                own += [f"{name}.{function.name}"] * len(found)
            elif function.name not in ("build", "published") and found:
                bad.append(f"{name}.{function.name}")
    return bad + own[LAZY_IN_PACKAGE:]


def long_experiments(root: Path) -> list[str]:
    bad = []
    for file in sorted(root.glob("experiments/*.py")):
        text = file.read_text()
        if text.count("\n") > EXPERIMENT_LINES:
            bad.append(f"{file.name}: {text.count(chr(10))} lines")
        for function in _functions(ast.parse(text)):
            length = (function.end_lineno or 0) - function.lineno + 1
            if function.name == "build" and length > BUILD_LINES:
                bad.append(f"{file.name}: build has {length} lines")
    return bad


def docstrings(root: Path) -> list[str]:
    """Docstrings that begin with "The same", "Of" or "What", and so can't be read alone; those under a field too."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = []
    for name, file in sources(root).items():
        for node in ast.walk(ast.parse(file.read_text())):
            texts = [ast.get_docstring(node) or ""] if isinstance(node, kinds) else []
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                texts.append(str(node.value.value))
            found += [f"{name}: {text[:40]}" for text in texts if text.startswith(("The same", "Of ", "What "))]
    return sorted(set(found))


def strange_folders(root: Path) -> list[str]:
    """Folders of tests that are no package of jgen: the tests mirror it."""
    folders = {f.parent.relative_to(root / "tests") for f in root.glob("tests/**/test_*.py")}
    return sorted(str(folder) for folder in folders if not (root / "jgen" / folder).is_dir())


RULES = {
    floors: {"jgen/train/a.py": "", "jgen/nn/b.py": "from jgen.train import a"},
    circles: {"jgen/nn/a.py": "from jgen.nn import b", "jgen/nn/b.py": "from jgen.nn import a"},
    experiments_of_experiments: {"experiments/a.py": "", "experiments/b.py": "from experiments import a"},
    lazy_imports: {"experiments/a.py": "def draw():\n    import math\n    return math.pi"},
    long_experiments: {"experiments/a.py": "def build(config):\n" + "    config = config\n" * 20},
    strange_folders: {"tests/objective/test_a.py": ""},
    docstrings: {"jgen/nn/a.py": 'def f():\n    """The same of g."""'},
}
"""A rule -> files that break it."""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_of_the_house_is_kept_and_fails_where_it_is_broken(rule, tmp_path):
    assert rule(ROOT) == []
    for name, text in RULES[rule].items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert rule(tmp_path)


def test_experiments_and_configs_import_without_jax():
    names = [
        name for name in sources(ROOT) if name.startswith(("experiments", "jgen.config")) and name != "experiments.mixture"
    ]
    code = f"""
        import importlib, sys
        for name in {names}:
            importlib.import_module(name)
        assert "jax" not in sys.modules, "jax"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=ROOT)
