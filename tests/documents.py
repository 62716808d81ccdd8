#!/usr/bin/python3
"""Promise: what a document points to is there. Every relative link of a *.md file leads to a file or folder of the
repository, and to a heading of it where it names one; every path in backticks that begins with a folder of the
repository exists; META.json has the versions of Cargo.toml and of the control file; and no file cites the folder
`shared`, which is not part of it. `documents.py [ROOT]`, in a git work tree; prints what breaks the promise, and ends
with 1."""

import json
import pathlib
import re
import subprocess
import sys

LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.I)
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^ {0,3}(```|~~~).*?^ {0,3}\1[^\n]*$", re.M | re.S)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.M)
# No option, no URL, no placeholder, no pattern.
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)+/?")
LINE_NUMBER = re.compile(r":\d+(?:-\d+)?$")
# In two parts, or this file would cite it.
FOREIGN = re.compile(r"\bshared" + "/")
# What a build makes.
MADE = "target/"


def files_of(root):
    """What git has of the work tree, or would take."""
    command = ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sorted(root / name for name in listed.split("\0") if name and (root / name).is_file())


def without_fences(text):
    """Fenced blocks are somebody's terminal. Lines keep their numbers."""
    return FENCE.sub(lambda block: "\n" * block[0].count("\n"), text)


def anchors(text):
    """As GitHub makes them of headings."""
    found, counts = set(), {}
    for heading in HEADING.findall(without_fences(text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        counts[anchor] = counts.get(anchor, -1) + 1
        found.add(f"{anchor}-{counts[anchor]}" if counts[anchor] else anchor)
    return found


def broken_link(root, path, link):
    """What is wrong with a link of that document, if something is."""
    if ELSEWHERE.match(link):
        return None
    target, _, anchor = link.partition("#")
    there = (path.parent / target).resolve() if target else path
    if root not in [there, *there.parents] or not there.exists():
        return f"links to {link}, which is not there"
    if anchor and there.suffix == ".md" and anchor not in anchors(there.read_text()):
        return f"links to {link}, which has no such heading"
    return None


def broken_paths(root, code, folders):
    """The paths in a piece of code that are not there."""
    for word in code.split():
        word = LINE_NUMBER.sub("", word.strip(",;"))
        if PATH.fullmatch(word) and word.split("/")[0] in folders and not word.startswith(MADE):
            if not (root / word).exists():
                yield f"names {word}, which is not there"


def faults(root, path, text, folders):
    """Where something is wrong in a file, and what."""
    yield from ((text, hit, "cites a folder that is not of this repository") for hit in FOREIGN.finditer(text))
    if path.suffix == ".md":
        prose = without_fences(text)
        bare = CODE.sub(lambda code: " " * len(code[0]), prose)
        yield from ((bare, hit, broken_link(root, path, hit[1])) for hit in LINK.finditer(bare))
        for hit in CODE.finditer(prose):
            yield from ((prose, hit, what) for what in broken_paths(root, hit[1], folders))


def broken(root):
    files = files_of(root)
    folders = {path.relative_to(root).parts[0] for path in files if path.parent != root}
    for path in files:
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        line = lambda of, hit: of.count("\n", 0, hit.start()) + 1
        found = [(line(of, hit), what) for of, hit, what in faults(root, path, text, folders) if what]
        yield from (f"{path.relative_to(root)}:{number} {what}" for number, what in sorted(found))


def other_versions(root):
    """Where META.json has another version than what it speaks of."""
    meta = json.loads((root / "META.json").read_text())
    pairs = [(meta["version"], "Cargo.toml", r'^version = "(.+)"$')]
    pairs += [(one["version"], one["file"], r"^default_version = '(.+)'$") for one in meta["provides"].values()]
    for version, file, pattern in pairs:
        there = re.search(pattern, (root / file).read_text(), re.M)[1]
        if version != there:
            yield f"META.json says {version}, and {file} says {there}"


def main(root):
    found = [*broken(root), *other_versions(root)]
    documents = sum(path.suffix == ".md" for path in files_of(root))
    print("\n".join(f"   {line}" for line in found) or f"   documents: {documents}, and what they point to is there")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()))
