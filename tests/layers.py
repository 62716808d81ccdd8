#!/usr/bin/python3
"""Promise: what lies lower knows nothing of what lies above it, and no two files need each other. A reader who follows a
call goes down these layers and never comes back up. Unsafe code stands where Postgres and shared memory are made safe, and
nowhere else. `layers.py [ROOT]`; prints what breaks the promise, and ends with 1."""

import pathlib
import re
import sys

# From the ground up: a module may use those of the lines before its own, and itself.
LAYERS = [
    ["error"],
    ["pg"],
    ["gucs"],
    ["crypto"],
    ["store"],
    ["provider"],
    ["job"],
    ["ipc"],
    ["hooks"],
    ["enqueue"],
    ["api"],
    ["trigger"],
    ["worker"],
    ["launcher"],
]
RANK = {module: rank for rank, modules in enumerate(LAYERS) for module in modules}

# Where unsafe code stands. The functions that Postgres calls have its calling convention, which is unsafe.
UNSAFE = ("pg/", "hooks/", "ipc/", "api/function.rs")

USE = re.compile(r"\buse\s+([^;]+);")
COMMENT = re.compile(r"//[^\n]*|\"(?:[^\"\\]|\\.)*\"")
PATH = re.compile(r"(?<![\w:])((?:\$?crate|super|self)(?:::\w+)+)")
MOD = re.compile(r"^\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;", re.M)


def leaves(tree):
    """The paths of a use tree."""
    depth, start, parts = 0, 0, []
    for at, char in enumerate(tree):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            parts.append(tree[start:at])
            start = at + 1
    for part in [*parts, tree[start:]]:
        part = part.strip()
        before, brace, rest = part.partition("{")
        if brace:
            yield from (f"{before}{leaf}" for leaf in leaves(rest.rpartition("}")[0]))
        elif part:
            yield part.split(" as ")[0].strip()


def module_of(file):
    return "" if file.stem == "lib" and len(file.parts) == 1 else "::".join(file.with_suffix("").parts)


class Tree:
    def __init__(self, src):
        self.files = {module_of(path.relative_to(src)): path for path in sorted(src.rglob("*.rs"))}

    def defining(self, path, module):
        """The module of this crate that a path leads to; None: it leads elsewhere."""
        parts = path.replace("$", "").split("::")
        here = module.split("::") if module else []
        if parts[0] == "crate":
            parts = parts[1:]
        elif parts[0] in ("self", "super"):
            while parts and parts[0] in ("self", "super"):
                here = here[:-1] if parts[0] == "super" else here
                parts = parts[1:]
            parts = here + parts
        elif "::".join(here + parts[:1]) in self.files and here + parts[:1]:
            parts = here + parts
        else:
            return None
        while parts and "::".join(parts) not in self.files:
            parts = parts[:-1]
        return "::".join(parts)

    def uses(self, module):
        """Whatever this module's file names of the crate, macros and tests included."""
        text = COMMENT.sub("", self.files[module].read_text())
        found = {self.defining(leaf, module) for tree in USE.findall(text) for leaf in leaves(tree)}
        found |= {self.defining(path, module) for path in PATH.findall(USE.sub("", text))}
        children = {"::".join(filter(None, (module, name))) for name in MOD.findall(text)}
        strange = children - set(self.files)
        if strange:
            raise SystemExit(f"{self.files[module]}: there is no file of {', '.join(strange)}")
        return found - {None, module, ""}


def circles(graph):
    """Sets of modules that need each other (Tarjan)."""
    order, low, stack, found = {}, {}, [], []

    def visit(node):
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in graph[node]:
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in graph:
        if node not in order:
            visit(node)
    return found


def main(root):
    src = root / "src"
    tree = Tree(src)
    graph = {module: tree.uses(module) for module in tree.files}
    broken = []
    for module, used in graph.items():
        top = module.split("::")[0]
        if top and top not in RANK:
            broken.append(
                f"{tree.files[module].relative_to(root)}: {top} has no place among the layers of tests/layers.py"
            )
            continue
        for other in sorted(used):
            below = other.split("::")[0]
            if top and below != top and RANK.get(below, -1) >= RANK[top]:
                broken.append(f"{tree.files[module].relative_to(root)} uses {other}: {below} does not lie below {top}")
    for path in tree.files.values():
        is_room = path.relative_to(src).as_posix().startswith(UNSAFE)
        if not is_room and re.search(r"\bunsafe\b", COMMENT.sub("", path.read_text())):
            broken.append(f"{path.relative_to(root)} has unsafe code, which stands in {', '.join(UNSAFE)} alone")
    broken += [f"these need each other: {', '.join(circle)}" for circle in circles(graph)]
    print("\n".join(f"   {line}" for line in broken) or f"   layers: {len(graph)} files, none looks up, and no circle")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent)))
