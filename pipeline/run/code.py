"""Hash the code behind a function: its source, and that of every module of ours that it can reach.

The modules are found by parsing imports. The search starts at the imports inside the function and inside
those functions of its module that it calls, and follows every import of each module found, including those
inside functions. A string that names a module (`"data.readers.pictures.image:read"`) counts as an import, and
a string that ends in `.toml` as the file of that name beside the module.

Installed packages are not followed: their versions belong to the environment.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from data.files import hash_file, hash_json

ROOT = Path(__file__).parents[2]
PACKAGES = ("data", "kb_builder", "trainer", "pipeline")
# Modules that list, run and skip stages: what a stage computes is in the modules that they call.
MACHINERY = frozenset(
    {"pipeline.api"}  # which the package exports, so that every module of it would lead there
    | {f"pipeline.run.{name}" for name in ("runner", "jobs", "stage", "stale", "marks", "sealing", "code")}
    | {
        f"pipeline.engines{name}" for name in ("", ".choose", ".base", ".local", ".ray", ".worker", ".probe")
    }  # where, not what
)

_MODULE_NAME = re.compile(rf"((?:{'|'.join(PACKAGES)})(?:\.\w+)+)(?::\w+)?")


@cache
def code_hash(function: Callable[..., Any]) -> str:
    """The hash of a function's own source, of the functions of its module that it calls, and of `files`."""
    own = [ast.unparse(node) for node in _nodes(function)]
    return hash_json(
        [own, [(path.relative_to(ROOT).as_posix(), hash_file(path)) for path in files(function)]]
    )


@cache
def files(function: Callable[..., Any]) -> tuple[Path, ...]:
    """Our files that a function may run or read as part of its code, sorted; without its own file."""
    found: set[Path] = set()
    left = [name for node in _nodes(function) for name in _imports(ast.walk(node))]
    left += _imported_names(function)
    done: set[str] = set(MACHINERY)
    while left:
        name = left.pop()
        path = _file(name)
        if name in done or path is None:
            continue
        done.add(name)
        found.add(path)
        more, beside = _of_module(path)
        found.update(beside)
        left += [*more, *_parents(name)]
    return tuple(sorted(found))


def _nodes(function: Callable[..., Any]) -> list[ast.FunctionDef]:
    """The syntax trees of a function and of the functions of its module that it calls, also indirectly."""
    module = sys.modules[function.__module__]
    found: dict[str, ast.FunctionDef] = {}
    left = [function]
    while left:
        this = left.pop()
        if this.__qualname__ in found:
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(this)))
        (node,) = (each for each in tree.body if isinstance(each, ast.FunctionDef))
        found[this.__qualname__] = node
        used = (getattr(module, name, None) for name in _names(node))
        left += [each for each in used if inspect.isfunction(each) and each.__module__ == module.__name__]
    return [found[name] for name in sorted(found)]


def _imported_names(function: Callable[..., Any]) -> Iterator[str]:
    """The modules from which the names used in a function are imported at the top of its module."""
    module = sys.modules[function.__module__]
    path = Path(inspect.getfile(function))
    used = {name for node in _nodes(function) for name in _names(node)}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import | ast.ImportFrom) and module.__name__ in sys.modules:
            for alias in node.names:
                if (alias.asname or alias.name).partition(".")[0] in used:
                    yield from _of_alias(node, alias)


def _names(node: ast.FunctionDef) -> set[str]:
    """The names that a function's body uses; those in annotations are not evaluated."""
    return {
        each.id
        for statement in node.body
        for each in ast.walk(statement)
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)
    }


@cache
def _of_module(path: Path) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """The modules that a source file imports or names, and the .toml files beside it that it names."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    texts = [each.value for each in nodes if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    named = [match[1] for text in texts if (match := _MODULE_NAME.fullmatch(text))]
    beside = [
        file
        for text in texts
        if text.endswith(".toml") and "/" not in text and "\n" not in text
        # `f"{purpose}.toml"` may be any of them
        for file in path.parent.glob("*.toml" if text == ".toml" else text)
    ]
    return (*_imports(nodes), *named), tuple(beside)


def _imports(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield from _of_alias(node, alias)


def _of_alias(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> Iterable[str]:
    """`from a import b`: both a and a.b may be modules."""
    if isinstance(node, ast.Import):
        return [alias.name]
    return [] if node.module is None else [node.module, f"{node.module}.{alias.name}"]


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


@cache
def _file(name: str) -> Path | None:
    """The file of one of our modules; None for any other name."""
    if name.partition(".")[0] not in PACKAGES:
        return None
    place = ROOT.joinpath(*name.split("."))
    for path in (place.with_suffix(".py") if "." in name else place / "__init__.py", place / "__init__.py"):
        if path.is_file():
            return path
    return None
