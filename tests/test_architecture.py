"""Architecture rules as tests: imports, pinned dependencies, and correct documents."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from click import Group
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import find_packages

from search.cli.main import cli
from search.spec.spec import load_spec

ROOT = Path(__file__).parent.parent
PACKAGES = ("data", "trainable", "search")
BELOW = {"data": {"data"}, "trainable": {"data", "trainable"}, "search": {"data", "trainable", "search"}}
WITH_RAY = ROOT / "trainable" / "trainer.py"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES_PER_FOLDER = 14
INSTALLER = {"pip"}
"""Comes with the environment itself, so that no pin decides on it."""


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(path.read_text())


def imported(path: Path) -> set[str]:
    """The top-level names that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0] if node.level == 0 else path.relative_to(ROOT).parts[0])
    return names


def pins() -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line]
    return {canonicalize_name(requirement.name): str(requirement.specifier) for requirement in requirements}


def required(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> Iterator[str]:
    """The distributions that `name` needs on this machine, and those that they need."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    for line in metadata.requires(name) or []:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
            continue
        needed = canonicalize_name(requirement.name)
        yield needed
        yield from required(needed, frozenset(requirement.extras), seen)


def documents() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def prose() -> str:
    return "\n".join(path.read_text() for path in documents())


def makefile() -> str:
    return (ROOT / "Makefile").read_text()


def code_lines() -> list[str]:
    """Lines of the documents' code blocks, fenced or indented; a line that ends with a backslash with its next one."""
    lines, fenced = [], False
    for line in prose().replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            lines.append(line.strip())
    return lines


def commands() -> set[str]:
    assert isinstance(cli, Group)
    return set(cli.commands)


def test_modules_are_found() -> None:
    """Without any module, the rules below would pass."""
    assert {path.relative_to(ROOT).parts[0] for path in modules()} == set(PACKAGES)
    assert len(modules()) > 40


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    """search → trainable → data, never back: a data set is read without a network, a trial runs without a search."""
    wrong = {
        str(path.relative_to(ROOT)): names
        for path in (ROOT / package).rglob("*.py")
        if (names := (imported(path) & set(PACKAGES)) - BELOW[package])
    }

    assert wrong == {}


def test_ray_is_imported_in_search_and_the_trainer_only() -> None:
    """A trial's model, losses, loop and data run on any machine: Ray is in search/ and in the trainer alone."""
    importing = [path for path in modules() if "ray" in imported(path)]
    outside = [path for path in importing if path.relative_to(ROOT).parts[0] != "search"]

    assert outside == [WITH_RAY]
    assert len(importing) > 1


def test_text_files_are_utf_8_whatever_the_locale() -> None:
    """A file that one machine writes is read on another, and '×' cannot be written in the encoding of every locale."""
    wrong = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
        and is_text_file(node)
        and not any(keyword.arg == "encoding" for keyword in node.keywords)
    }

    assert wrong == set()


def is_text_file(call: ast.Call) -> bool:
    """Whether a call opens, reads or writes a text file."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    modes = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    opens = name == "open" and any(isinstance(mode, str) and re.fullmatch("[rwxa]t?[+]?", mode) for mode in modes)
    return opens or name in {"read_text", "write_text"}


def test_data_needs_no_torch() -> None:
    """Importing and rendering run where no torch is: it is imported where a batch is made, in the loader."""
    names = ["data." + ".".join(path.relative_to(ROOT / "data").with_suffix("").parts) for path in data_modules()]
    loaded = modules_after(f"import importlib; [importlib.import_module(name) for name in {names!r}]")

    assert {"data.dataset.dataset", "data.scenes.scenes"} <= loaded
    assert not {"torch", "ray", "kornia", "albumentations"} & loaded


def data_modules() -> list[Path]:
    on_the_device = {"loader.py", "device.py"}
    return [path for path in (ROOT / "data").rglob("*.py") if path.name not in {"__init__.py", *on_the_device}]


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after `code`."""
    shown = f"{code}\nimport sys\nsys.stderr.write('\\n'.join(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", shown], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    )
    return set(ran.stderr.split())


@functools.cache
def import_graph() -> dict[str, set[str]]:
    """Which module imports which, wherever in it: at its top, within a function, or for type checking alone."""
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in modules()
    }
    graph: dict[str, set[str]] = {name: set() for name in names}
    for name, path in names.items():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names if alias.name in names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    graph[name] |= {inner} if inner in names else {node.module} & names.keys()
    return graph


def cycles(graph: dict[str, set[str]]) -> list[str]:
    """The nodes that are left when those without a successor are removed again and again, and those without a
    predecessor; none if the graph has no cycle.
    """
    left = {node: successors - {node} for node, successors in graph.items()}
    while True:
        needed = set().union(*left.values()) if left else set()
        ends = {node for node, successors in left.items() if not successors & left.keys() or node not in needed}
        if not ends:
            return sorted(left)
        left = {node: successors - ends for node, successors in left.items() if node not in ends}


def test_a_cycle_is_found() -> None:
    """A cycle is found, without the modules that are not on it."""
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == ["b", "c"]


def test_there_are_no_import_cycles() -> None:
    """Modules in a cycle cannot be read, tested or moved alone."""
    assert cycles(import_graph()) == []


FLOORS = ("cli", "api", "recipes", "cluster", "run", "report", "results", "strategy", "study", "spec")
"""The packages of `search`, from the top down."""


def test_search_imports_go_down_the_floors() -> None:
    """Within `search`, imports go down one stair: a spec is read without a study, a result shown without a run."""
    floors = {f"search.{floor}": depth for depth, floor in enumerate(FLOORS)}
    upwards = [
        f"{name} -> {other}"
        for name, others in import_graph().items()
        for other in others
        if (below := floors.get(".".join(name.split(".")[:2]))) is not None
        and (above := floors.get(".".join(other.split(".")[:2]))) is not None
        and above < below
    ]

    assert upwards == []


def test_folders_are_small() -> None:
    """A dozen names can be scanned quickly."""
    sizes = Counter(path.parent for path in modules() if path.name != "__init__.py")

    assert {str(folder): count for folder, count in sizes.items() if count > MODULES_PER_FOLDER} == {}


def test_every_package_has_a_one_sentence_docstring() -> None:
    """Newcomers open folders first."""
    for path in modules():
        if path.name == "__init__.py":
            docstring = ast.get_docstring(parsed(path)) or ""
            assert docstring.splitlines()[0].endswith("."), path


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["predict", "--help"]])
def test_help_imports_no_heavy_library(arguments: list[str]) -> None:
    """Loading torch and Ray takes seconds, which help does not need."""
    code = f"from search.cli.main import cli\ncli.main({arguments!r}, standalone_mode=False)"

    assert not {"torch", "ray", "optuna", "cv2", "pyarrow"} & modules_after(code)


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "--resume", "nowhere"],
        ["retrain", "nowhere"],
        ["best", "nowhere"],
        ["trials", "nowhere"],
        ["report", "nowhere"],
    ],
)
def test_unknown_name_is_reported_before_heavy_imports(arguments: list[str]) -> None:
    """An error that needs neither torch nor Ray must not wait for them."""
    code = f"""
from data.errors import InputError
from search.cli.main import cli
from search.spec.spec import load_spec
try:
    cli.main({arguments!r}, standalone_mode=False)
except InputError as error:
    assert "There is no search 'nowhere'" in str(error)
else:
    raise AssertionError
"""

    assert not {"torch", "ray", "cv2"} & modules_after(code)


@pytest.mark.parametrize("path", [str(path.relative_to(ROOT)) for path in modules()])
def test_every_module_has_a_docstring(path: str) -> None:
    """The first line says what a name cannot."""
    docstring = ast.get_docstring(parsed(ROOT / path))

    assert docstring
    assert docstring.splitlines()[0][-1] in ".,:;", path


def test_every_package_is_installed() -> None:
    """A folder that setuptools does not find as a package is missing in the wheel, and nowhere else."""
    included = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    found = {path.replace(".", "/") for path in find_packages(str(ROOT), include=included)}

    assert {str(path.parent.relative_to(ROOT)) for path in modules()} == found


def test_every_dependency_is_pinned() -> None:
    """Two machines that install today and in a year run the same; each pin is one version, and fits what we ask for."""
    asked = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"]
    for line in asked:
        requirement = Requirement(line)
        pin = pins().get(canonicalize_name(requirement.name), "")
        assert re.fullmatch(r"==[0-9][^,*]*", pin), requirement.name
        assert requirement.specifier.contains(pin.removeprefix("==")), requirement.name


def test_indirect_dependencies_are_pinned() -> None:
    """An indirect dependency changes a result, or breaks a build, as well as a direct one.

    The CUDA build of torch brings NVIDIA's libraries, each with the version that torch itself demands.
    """
    needed = set(required("twinhead", frozenset({"", "dev"}), set())) - INSTALLER
    pinned_by_torch = {name for name in needed if name.startswith(("nvidia-", "cuda-")) or name == "triton"}

    assert len(needed) > len(PROJECT["project"]["dependencies"])
    assert sorted(needed - pinned_by_torch - pins().keys()) == []


def test_installed_versions_are_the_pinned_ones() -> None:
    """The tests must run with the pinned versions."""
    needed = set(required("twinhead", frozenset({"", "dev"}), set()))
    differing = {
        name: (metadata.version(name), pin)
        for name, pin in pins().items()
        if name in needed and f"=={metadata.version(name).split('+')[0]}" != pin
    }

    assert differing == {}


def test_the_documents_name_every_command() -> None:
    """A command that they do not name is not found; one that they name and that does not exist is a bad start."""
    shown = {match for line in code_lines() for match in re.findall(r"(?:^|[/$ ])twinhead +([a-z]+)", line)}
    told = set(re.findall(r"`twinhead +([a-z]+)", prose()))
    made = set(re.findall(r"make ([a-z-]+)", prose())) & set(re.findall(r"/twinhead ([a-z]+)", makefile()))

    assert sorted(commands() - shown - told - made) == []
    assert sorted((shown | told) - commands()) == []


def test_the_options_in_the_documents_exist() -> None:
    """An example that does not run is worse than none."""
    assert isinstance(cli, Group)
    examples = [*code_lines(), *re.findall(r"`(twinhead [^`]+)`", prose())]
    checked = 0
    for line in examples:
        if match := re.search(r"(?:^|[/$ ])twinhead +([a-z]+)(.*)", line.split("#")[0]):
            known = {option for parameter in cli.commands[match[1]].params for option in parameter.opts}
            unknown = set(re.findall(r"(?<=\s)--[a-z-]+", match[2])) - known - {"--help"}
            assert unknown == set(), line
            checked += 1
    assert checked > 20


def test_spec_in_the_documents_is_valid(tmp_path: Path) -> None:
    """Users copy it."""
    whole, *parts = re.findall(r"```yaml\n(.+?)```", prose(), flags=re.DOTALL)
    (tmp_path / "spec.yaml").write_text(whole)

    assert load_spec(tmp_path / "spec.yaml").plan.budget.trials == 40
    for part in parts:
        (tmp_path / "spec.yaml").write_text(part)
        load_spec(tmp_path / "spec.yaml", data_path="set")


def test_the_make_targets_in_the_documents_exist() -> None:
    """They are the first commands that a user types."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile(), flags=re.MULTILINE))
    inline = re.findall(r"`make ([a-z-]+)", prose())
    code = [match[1] for line in code_lines() if (match := re.match(r"(?:\$ )?make ([a-z-]+)", line))]

    assert inline
    assert code
    assert sorted({*inline, *code} - targets) == []


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_links_have_targets(document: Path) -> None:
    """A moved file breaks links to it."""
    text = document.read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    titles = re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}
    relative = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    broken = [
        link
        for link in relative
        if (link[1:] not in anchors if link.startswith("#") else not (document.parent / link.split("#")[0]).exists())
    ]

    assert broken == []


def test_files_in_the_documents_exist() -> None:
    """A path in backticks is a way into the code."""
    paths = re.findall(r"`((?:data|trainable|search|tests|docs)/[\w/.-]*)`", prose())

    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_architecture_chapter_names_every_package() -> None:
    """`docs/architecture.md` names every package and every module at the top of one."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    packages = {path.parent.name + "/" for path in modules() if path.parent.parent != ROOT}
    top = {path.name for path in modules() if path.parent.parent == ROOT and path.name != "__init__.py"}

    assert [name for name in sorted(packages | top) if f"`{name}`" not in text] == []
