"""A graph printed as the program that made it."""

from typing import Any

from interpose.graph import markup
from interpose.graph.arguments import Dots, Dtype, Ref, Slice
from interpose.graph.nodes import (
    Apply,
    Call,
    Constant,
    Gradient,
    Graph,
    Input,
    Log,
    Node,
    Op,
    Read,
    Save,
    Skip,
    Stop,
    Weight,
    Write,
)

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "true_divide": "/", "matmul": "@", "pow": "**"}


def show(graph: Graph) -> str:
    """The graph as text: one line a node, grouped by world.

    Args:
        graph: any graph.

    Returns:
        lines such as `v3 = layers[12].output`, under `with world("clean"):` where they belong to one.
    """
    lines: list[str] = []
    for heading, steps in _parts(graph):
        lines += [*([f"{heading}:"] if heading else []), *(("    " if heading else "") + step for step in steps)]
    return "\n".join(lines)


def show_html(graph: Graph) -> str:
    """The same for a notebook: a heading for each world, its steps below."""
    worlds = ", ".join(world.name for world in graph.worlds) or "none"
    parts = [markup.title(f"Graph of {len(graph.nodes):,} steps; worlds: {worlds}")]
    for heading, steps in _parts(graph):
        parts += [*([markup.title(heading)] if heading else []), markup.lines("\n".join(steps))]
    return "".join(parts)


def _parts(graph: Graph) -> list[tuple[str, list[str]]]:
    """The steps in order, cut where another world is spoken of, each part under its heading."""
    parts: list[tuple[str, list[str]]] = []
    world, steps = None, None
    for index, node in enumerate(graph.nodes):
        if isinstance(node, Read | Write | Skip | Stop) and node.world != world:
            world, steps = node.world, None
            base = next((w.base for w in graph.worlds if w.name == world), None)
            parts.append((f'world("{world}"' + (f', base="{base}"' if base else "") + ")", []))
        if not parts:
            parts.append(("", []))
        here = getattr(node, "steps", steps) if world is not None else None
        if here != steps:
            steps = here
            parts[-1][1].append(f"{steps or 'at every step'}:")
        parts[-1][1].append("    " * (steps is not None) + _line(index, node))
    return parts


def _line(index: int, node: Node) -> str:
    match node:
        case Write(site=site, value=value):
            return f"{site} = {_text(value)}"
        case Skip(site=site, value=value):
            return f"{str(site).rpartition('.')[0]}.skip({_text(value)})"
        case Stop():
            return "stop()"
        case Save(name=name, value=value):
            return f'{_text(value)}.save("{name}")'
        case Log(label=label, value=value):
            return f"log({label!r}, {_text(value)})"
    return f"v{index} = {_value(node)}"


def _value(node: Node) -> str:
    match node:
        case Read(site=site):
            return str(site)
        case Op():
            return _operation(node)
        case Call(module=module, args=args):
            return f'call.module("{module}", {", ".join(_text(arg) for arg in args)})'
        case Gradient(of=of, wrt=wrt):
            return f"grad({_text(of)}, {_text(wrt)})"
        case Weight(path=path):
            return f'weight("{path}")'
        case Constant(ref=ref):
            return f"constant({ref})"
        case Input(name=name):
            return f"input({name})"
        case Apply(function=function, args=args):
            name = getattr(function, "__name__", type(function).__name__)
            return f"apply({', '.join([name, *map(_text, args)])})"
    return repr(node)


def _operation(node: Op) -> str:
    match node:
        case Op(name="getitem", args=(base, where)):
            return f"{_text(base)}[{_index(where)}]"
        case Op(name="setitem", args=(base, where, value)):
            return f"{_text(base)} with [{_index(where)}] = {_text(value)}"
        case Op(name=name, args=(left, right), kwargs=()) if name in _INFIX:
            return f"{_text(left)} {_INFIX[name]} {_text(right)}"
    said = [_text(arg) for arg in node.args] + [f"{key}={_text(value)}" for key, value in node.kwargs]
    return f"{node.name}({', '.join(said)})"


def _index(where: Any) -> str:
    return ", ".join(_text(part) for part in where) if isinstance(where, tuple) and where else _text(where)


def _text(value: Any) -> str:
    match value:
        case Ref(index=index):
            return f"v{index}"
        case Slice(start=start, stop=stop, step=step):
            said = ["" if part is None else _text(part) for part in (start, stop)]
            return ":".join(said) + ("" if step is None else f":{_text(step)}")
        case Dots():
            return "..."
        case Dtype(name=name):
            return name
        case tuple():
            return "[" + ", ".join(_text(item) for item in value) + "]"
    return repr(value)
