"""A class's own source, with everything that it refers to: imports, constants, helper functions and classes.

Nothing is guessed: what a name stands for is looked up in the live class's globals. What cannot be written down, an
object that is neither code nor a plain value, ends it with a reason.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import importlib.util
import io
import linecache
import math
import symtable
import sys
import sysconfig
import textwrap
import tokenize
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LONGEST_LITERAL = 4000
"""Characters of a constant; longer ones are data, not source."""


class NotCaptured(Exception):  # noqa: N818 - a reason, told together with others
    """Why this way of writing a module down does not work; the end of a sentence."""


@dataclass
class Carried:
    """The pieces of a file."""

    name: str = ""
    """Of the class, in the file."""
    future: bool = False
    """The source has `from __future__ import annotations`."""
    arguments: list[str] = field(default_factory=list)
    """Of the constructor."""
    imports: dict[str, None] = field(default_factory=dict)
    constants: dict[str, None] = field(default_factory=dict)
    definitions: list[str] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)
    """What each name of the file means in the live process."""
    defined: set[Any] = field(default_factory=set)

    @property
    def text(self) -> list[str]:
        """Lines from the imports to the class."""
        lines = [line for line in sorted(self.imports) if line not in ("import torch", "from torch import nn")]
        lines += ["", *self.constants] if self.constants else []
        for definition in self.definitions:
            lines += ["", "", *definition.splitlines()]
        return lines


def carry(cls: type, init: Sequence[Any]) -> Carried:
    """What a file needs that defines this class, and its constructor's arguments. Raises NotCaptured."""
    if _installed(cls.__module__):
        raise NotCaptured(f"{cls.__module__}.{cls.__qualname__} is a library's class, not your own")
    carried = Carried(name=cls.__name__)
    carried.seen[cls.__name__] = cls
    _define(carried, cls)
    arguments = [argument(carried, value, "an argument of its constructor") for value in init]
    if "Model" in carried.seen:  # the file needs the name for itself
        carried.definitions = [_renamed(text, "Model", "CapturedModel") for text in carried.definitions]
        arguments = [_renamed(text, "Model", "CapturedModel") for text in arguments]
        carried.name = "CapturedModel" if cls.__name__ == "Model" else carried.name
    for taken in ("get_inputs", "get_init_inputs"):
        if taken in carried.seen:
            raise NotCaptured(f"it uses a {taken} of its own")
    carried.arguments = arguments
    return carried


def literal(value: Any, what: str) -> str:
    """A plain value as source: numbers, text, None, torch dtypes, and containers of them. Raises NotCaptured."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if value is None or type(value) in (bool, int, float, str, complex, bytes):
        text = repr(value)
    elif type(value) in (tuple, list, set) and value:
        inner = ", ".join(literal(item, what) for item in value)
        comma = "," if type(value) is tuple and len(value) == 1 else ""
        around = {"tuple": "()", "list": "[]", "set": "{}"}[type(value).__name__]
        text = f"{around[0]}{inner}{comma}{around[1]}"
    elif type(value) in (tuple, list):
        text = repr(value)
    elif type(value) is dict:
        text = "{" + ", ".join(f"{literal(k, what)}: {literal(v, what)}" for k, v in value.items()) + "}"
    elif type(value).__module__ == "torch" and type(value).__name__ == "dtype":
        text = str(value)
    elif type(value).__module__ == "torch" and type(value).__name__ == "Size":
        text = repr(tuple(value))
    else:
        raise NotCaptured(f"{what} is a {type(value).__name__}, which cannot be written down")
    if len(text) > LONGEST_LITERAL:
        raise NotCaptured(f"{what} is too long to be written down")
    return text


def argument(carried: Carried, value: Any, what: str) -> str:
    """An argument of the constructor as source: a plain value, or a dataclass of yours that holds such, as many
    configurations are. Raises NotCaptured."""
    cls = type(value)
    if not dataclasses.is_dataclass(cls) or _installed(cls.__module__):
        return literal(value, what)
    if carried.seen.setdefault(cls.__name__, cls) is not cls:
        raise NotCaptured(f"{cls.__name__} means different things in different places")
    if cls not in carried.defined:
        _define(carried, cls)
    held = (f for f in dataclasses.fields(value) if f.init)
    inside = (f"{f.name}={argument(carried, getattr(value, f.name), f'{what}.{f.name}')}" for f in held)
    return f"{cls.__name__}({', '.join(inside)})"


def _define(carried: Carried, thing: Any) -> None:
    """Adds a class or function of the user's after everything that it refers to."""
    carried.defined.add(thing)
    text, tree, scope = _source(thing)
    future = any(isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in tree.body)
    if carried.definitions and future != carried.future:
        raise NotCaptured(f"{thing.__name__} and its class read their annotations differently")
    carried.future = future
    for name in _global_names(text, carried.future):
        if name in scope:
            _refer(carried, name, scope[name], tree, scope, thing.__name__)
        elif not hasattr(builtins, name):
            raise NotCaptured(f"{thing.__name__} uses {name}, which is not defined")
    carried.definitions.append(text)


def _refer(carried: Carried, name: str, value: Any, tree: ast.Module, scope: dict[str, Any], user: str) -> None:
    """Makes `name` mean `value` in the file."""
    if name in carried.seen:
        if carried.seen[name] is not value:
            raise NotCaptured(f"{name} means different things in different places")
        return
    carried.seen[name] = value
    if statements := _imports_of(name, tree, str(scope.get("__package__") or "")):
        carried.imports |= dict.fromkeys(statements)
    elif isinstance(value, types.ModuleType):
        if not _installed(value.__name__):
            raise NotCaptured(f"{user} uses {value.__name__}, a module of yours that a task cannot import")
        carried.imports[f"import {value.__name__}" + (f" as {name}" if name != value.__name__ else "")] = None
    elif isinstance(value, type | types.FunctionType) and not _installed(value.__module__):
        if value.__name__ != name:
            raise NotCaptured(f"{user} calls {value.__name__} {name}")
        _define(carried, value)
    elif (home := getattr(value, "__module__", None)) and _exported(home, value):
        own = value.__name__
        carried.imports[f"from {home} import {own}" + (f" as {name}" if own != name else "")] = None
    else:
        carried.constants[f"{name} = {literal(value, f'{name}, which {user} uses,')}"] = None


def _source(thing: Any) -> tuple[str, ast.Module, dict[str, Any]]:
    """Text of a class or function, the tree of its file, and what its names mean. Works for a notebook's cells, too."""
    wanted = ast.ClassDef if isinstance(thing, type) else ast.FunctionDef
    functions = _functions(thing)
    scope = dict(vars(sys.modules[thing.__module__])) if thing.__module__ in sys.modules else {}
    for function in functions:
        scope |= function.__globals__
    for function in functions:
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        scope |= {name: cell.cell_contents for name, cell in cells if name != "__class__"}
    line = functions[0].__code__.co_firstlineno if functions else 0
    for file in [functions[0].__code__.co_filename] if functions else _files(thing.__module__):
        lines = linecache.getlines(file, scope)
        try:
            tree = ast.parse("".join(lines))
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, wanted) and node.name == thing.__name__:
                start = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                if not functions or start <= line <= (node.end_lineno or start):
                    return textwrap.dedent("".join(lines[start - 1 : node.end_lineno])).rstrip(), tree, scope
    raise NotCaptured(f"the source of {thing.__name__} is not at hand")


def _files(module: str) -> list[str]:
    """Where a class without functions may stand: its module's file, or the cells of a notebook, the newest first."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return [file] if file else [name for name in reversed(linecache.cache) if not Path(name).is_absolute()]


def _functions(thing: Any) -> list[types.FunctionType]:
    """A function, or those that are written in a class."""
    if isinstance(thing, types.FunctionType):
        return [thing]
    found = []
    for member in vars(thing).values():
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if not isinstance(function, types.FunctionType) or function.__module__ != thing.__module__:
            continue
        if function.__code__.co_filename not in ("<string>", dataclasses.__file__):  # what a decorator made
            found.append(function)
    return found


def _global_names(text: str, future: bool) -> list[str]:
    """Names that a definition looks up outside of itself."""
    top = symtable.symtable(("from __future__ import annotations\n" if future else "") + text, "captured", "exec")
    names: set[str] = {s.get_name() for s in top.get_symbols() if s.is_referenced() and not s.is_assigned()}
    own = {s.get_name() for s in top.get_symbols() if s.is_assigned()} | {c.get_name() for c in top.get_children()}
    tables = list(top.get_children())
    while tables:
        table = tables.pop()
        tables += table.get_children()
        names |= {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
    return sorted(names - own)


def _imports_of(name: str, tree: ast.Module, package: str) -> list[str]:
    """The statements of a file that import `name` from an installed package."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [
                f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
                for alias in node.names
                if (alias.asname or alias.name.partition(".")[0]) == name and _installed(alias.name)
            ]
        elif isinstance(node, ast.ImportFrom) and (package or not node.level):
            home = node.module or ""
            if node.level:
                home = importlib.util.resolve_name("." * node.level + home, package)
            found += [
                f"from {home} import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
                for alias in node.names
                if (alias.asname or alias.name) == name and home != "__future__" and _installed(home)
            ]
    return found


def _exported(home: str, value: Any) -> bool:
    """Whether an installed module gives this value under its own name."""
    module = sys.modules.get(home)
    name = getattr(value, "__name__", "")
    return bool(name) and _installed(home) and getattr(module, name, None) is value


def _installed(module: str) -> bool:
    """Whether a module is the standard library's or an installed package's, so that a cage has it, too."""
    top = module.partition(".")[0]
    if top == "__main__":  # below `python -m`, its spec is that of the package which runs it
        return False
    if top in sys.stdlib_module_names:
        return True
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    places = [Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib")]
    origins = [spec.origin] if spec and spec.origin else list(spec.submodule_search_locations or ()) if spec else []
    return any(Path(origin).resolve().is_relative_to(place) for origin in origins for place in places)


def _renamed(text: str, old: str, new: str) -> str:
    """A definition with a name exchanged, in code alone."""
    lines = text.splitlines(keepends=True)
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.NAME]
    for token in reversed(tokens):
        (row, start), (_, end) = token.start, token.end
        line = lines[row - 1]
        if token.string == old and not line[:start].rstrip().endswith("."):
            lines[row - 1] = line[:start] + new + line[end:]
    return "".join(lines)
