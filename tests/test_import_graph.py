"""How the rooms and modules of the two packages import each other: downwards, in no circle, and along few arrows."""

from __future__ import annotations

import ast
import graphlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
RUNTIME, CLI = "lorajob_runtime", "lorajob"
MOST_ROOMS = {RUNTIME: 12, CLI: 15}
MOST_ARROWS = {RUNTIME: 43, CLI: 44}
"""From room to room. One more arrow is one more thing to know of a room: docs/architecture.md shows them all."""
FOR_BOTH_SIDES = ("contract", "models", "data.rows")
"""Rooms of the runtime that need the standard library only. `lorajob` imports others where it calls them."""

Arrows = Mapping[str, set[str]]


@pytest.fixture(scope="module")
def modules() -> Arrows:
    """Every module of both packages, and the modules that it imports anywhere in its text."""
    graph = grimp.build_graph(CLI, RUNTIME, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def rooms_of(modules: Arrows, package: str) -> dict[str, set[str]]:
    """Every room of a package, and the other rooms of it that its modules import."""
    found: dict[str, set[str]] = {}
    for module, imported in modules.items():
        room = _room(module, package)
        if room:
            found.setdefault(room, set()).update(_room(each, package) for each in imported)
    return {room: arrows - {room, ""} for room, arrows in found.items()}


def _room(module: str, package: str) -> str:
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == package else ""


def circle_in(arrows: Arrows) -> list[str]:
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


def floors_of(package: str) -> dict[str, int]:
    """Every room that the layers of pyproject.toml name, and how far from the top it is."""
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    layers = next(each for each in linter["contracts"] if each.get("containers") == [package])["layers"]
    return {room.strip(): floor for floor, rooms in enumerate(layers) for room in rooms.split(":")}


def upward(rooms: Arrows, floors: Mapping[str, int]) -> list[str]:
    """Imports of a room from one that is not below it."""
    return [f"{room} -> {other}" for room, others in rooms.items() for other in others if floors[other] <= floors[room]]


def test_no_module_imports_itself_through_others(modules: Arrows) -> None:
    assert circle_in(modules) == []


@pytest.mark.parametrize("package", [RUNTIME, CLI])
def test_no_room_imports_itself_through_others(modules: Arrows, package: str) -> None:
    assert circle_in(rooms_of(modules, package)) == []


@pytest.mark.parametrize("package", [RUNTIME, CLI])
def test_every_room_has_its_floor_and_imports_from_lower_ones_only(modules: Arrows, package: str) -> None:
    rooms, floors = rooms_of(modules, package), floors_of(package)

    assert sorted(rooms) == sorted(floors)
    assert upward(rooms, floors) == []


@pytest.mark.parametrize("package", [RUNTIME, CLI])
def test_rooms_and_the_arrows_between_them_stay_few(modules: Arrows, package: str) -> None:
    rooms = rooms_of(modules, package)

    assert len(rooms) <= MOST_ROOMS[package]
    assert sum(map(len, rooms.values())) <= MOST_ARROWS[package]


def pictured(page: str, package: str) -> dict[str, set[str]]:
    """The arrows of the picture whose subgraph is called as the package. A node's text begins with its room."""
    picture = re.search(rf"subgraph {package}\[.*?\n *direction TB\n(.*?)\n  end", page, re.DOTALL)
    assert picture is not None, f"there is no picture of {package}"
    rooms = dict(re.findall(r'(\w+)\["(\w+)', picture[1]))
    found: dict[str, set[str]] = {}
    for line in picture[1].splitlines():
        room, *others = (rooms[node] for node in re.findall(r"\w+", re.sub(r"\[.*?\]", "", line)))
        found.setdefault(room, set()).update(others)
    return found


def reached(arrows: Arrows) -> dict[str, set[str]]:
    """What each room reaches, over others too."""
    found: dict[str, set[str]] = {}
    for room in graphlib.TopologicalSorter(arrows).static_order():
        direct = arrows.get(room, set())
        found[room] = direct.union(*(found[each] for each in direct))
    return found


@pytest.mark.parametrize("package", [RUNTIME, CLI])
def test_the_picture_shows_every_room_and_no_arrow_that_is_not_there(modules: Arrows, package: str) -> None:
    rooms = rooms_of(modules, package)
    picture = pictured((ROOT / "docs/architecture.md").read_text("utf-8"), package)

    assert sorted(picture) == sorted(rooms)
    assert {room: arrows - rooms[room] for room, arrows in picture.items() if arrows - rooms[room]} == {}
    assert reached(picture) == reached(rooms)


def imported_at_once(source: str) -> Iterable[str]:
    """What is imported as soon as a module is: not in its functions, and not for type checkers alone."""
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{each.name}" for each in node.names)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            pending += node.orelse if is_for_types and isinstance(node, ast.If) else ast.iter_child_nodes(node)


def is_for_both_sides(imported: str) -> bool:
    below = imported.removeprefix(f"{RUNTIME}.")
    return below == "__version__" or any(f"{below}.".startswith(f"{room}.") for room in FOR_BOTH_SIDES)


def test_the_command_line_loads_no_other_room_of_the_runtime_before_it_needs_one() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {imported}"
        for path in sorted((ROOT / "cli").rglob("*.py"))
        for imported in imported_at_once(path.read_text("utf-8"))
        if imported.partition(".")[0] == RUNTIME and not is_for_both_sides(imported)
    ]

    assert found == []


def test_circles_upward_imports_and_early_ones_are_found() -> None:
    source = (
        "from lorajob_runtime import storage\n"
        "if TYPE_CHECKING:\n    import torch\nelse:\n    import lorajob_runtime.run\n"
        "def f():\n    import lorajob_runtime.train\n"
    )

    assert set(circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}
    assert sorted(upward({"a": {"b"}, "b": {"a", "c"}, "c": set()}, {"a": 0, "b": 1, "c": 1})) == ["b -> a", "b -> c"]
    assert sorted(imported_at_once(source)) == ["lorajob_runtime.run", "lorajob_runtime.storage"]
    assert not is_for_both_sides("lorajob_runtime.data.check.check")
    assert is_for_both_sides("lorajob_runtime.data.rows.read")
