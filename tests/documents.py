#!/usr/bin/python3
"""Promise: what a document points to is there, and can be read in a terminal. Every relative link of a *.md file leads to
a file or folder of the repository, and to a heading of it where it names one; every path in backticks or in a shell
block that begins with a folder of the repository exists, and every target that `make` is told to make; its lines are of
at most 120 characters, but for tables and logs, as are those of our Rust, and README.md has at most 120 of them; every
vendor's page in docs/vendors is of one shape, so that who has read one finds their way in the next; each vendor that has
a dialect is named wherever all are; META.json has the versions of Cargo.toml and of the control file; and no file cites the folder `shared`, which is not part of it.
`documents.py [ROOT]`, in a git work tree; prints what breaks the promise, and ends with 1. (That the SQL of the
documents works is test_documents_play.py's promise.)"""

import json
import pathlib
import re
import subprocess
import sys

LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.I)
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^ {0,3}(```|~~~)(\w*).*?^ {0,3}\1[^\n]*$", re.M | re.S)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.M)
# No option, no URL, no placeholder, no pattern.
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)+/?")
LINE_NUMBER = re.compile(r":\d+(?:-\d+)?$")
# In two parts, or this file would cite it.
FOREIGN = re.compile(r"\bshared" + "/")
# What a build makes.
MADE = "target/"
MAKE = re.compile(r"\bmake ((?:[a-z][a-z-]* ?)+)")
WIDTH = README_LINES = 120
VENDORS = "docs/vendors"
DIALECTS = "crates/dialect/src/dialects"
# Where all vendors are named.
LISTS = (
    "README.md",
    "CHANGELOG.md",
    "docs/vendors/README.md",
    "docs/reference.md",
    "docs/first-vendor.md",
    "docs/limits.md",
    "tests/simulator/README.md",
)
# The first table of a vendor's page, by how its rows begin.
FACTS = (
    "sends to",
    "`base_url`",
    "without an account",
    "credentials",
    "a code",
    "lives",
    "wrong codes",
    "between two sends",
    "resend",
    "cancel",
    "a verify",
)
# Its sections; between the first two and the others stand the calls, under headings of their own.
BEFORE = (r"Arrange with .+ first", "Set it up")
AFTER = ("Fields", "Answers", "On the wire", "Sources", "What remains uncertain")
# Nobody is behind it.
SANDBOX = ("without an account", BEFORE[0], *AFTER[-2:])


def files_of(root):
    """What git has of the work tree, or would take."""
    command = ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sorted(root / name for name in listed.split("\0") if name and (root / name).is_file())


def without_fences(text):
    """Fenced blocks are somebody's terminal. Everything else stays where it is."""
    return FENCE.sub(lambda fence: blank(fence[0]), text)


def blank(text):
    return re.sub(r"[^\n]", " ", text)


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


def broken_targets(root, code):
    """The targets that a piece of code has `make` make, and that the Makefile does not have."""
    targets = re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.M)
    for hit in MAKE.finditer(code):
        yield from (
            f"has `make {word}`, which the Makefile does not have" for word in hit[1].split() if word not in targets
        )


def broken_commands(root, text, folders):
    """Of the shell blocks, and of the code in a sentence that is a command."""
    for fence in FENCE.finditer(text):
        if fence[2] == "sh":
            for line in re.finditer(r"[^\n#]+", fence[0]):
                wrong = [*broken_paths(root, line[0], folders), *broken_targets(root, line[0])]
                yield from ((fence.start() + line.start(), what) for what in wrong)
    for code in CODE.finditer(without_fences(text)):
        if code[1].startswith("make "):
            yield from ((code.start(), what) for what in broken_targets(root, code[1]))


def too_long(root, path, text):
    """Where a line is, and where README.md ends."""
    prose = FENCE.sub(lambda fence: blank(fence[0]) if fence[2] == "log" else fence[0], text)
    for line in re.finditer(r"[^\n]*[^\n ]", prose):
        if len(line[0]) > WIDTH and not line[0].startswith("|"):
            yield line.start(), f"has {len(line[0])} characters, and {WIDTH} are the most"
    if path == root / "README.md" and text.count("\n") > README_LINES:
        yield len(text), f"is longer than {README_LINES} lines"


def long_code(root):
    """rustfmt leaves comments and literals as they are."""
    for path in files_of(root):
        if path.suffix == ".rs" and path.relative_to(root).parts[0] in ("src", "crates") and "tests" not in path.parts:
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if len(line) > WIDTH:
                    yield f"{path.relative_to(root)}:{number} has {len(line)} characters, and {WIDTH} are the most"


def other_shape(path, text):
    """Where a vendor's page is of another shape than its sisters."""
    left_out = SANDBOX if path.stem == "sandbox" else ()
    prose = without_fences(text)
    for paragraph in ("After this page ", "**You need:** "):
        if f"\n\n{paragraph}" not in prose:
            yield 0, f"has no paragraph that begins with {paragraph.strip()!r}"
    facts = re.search(r"^\| \| \|\n\|---\|---\|\n((?:\|.*\n)*)", prose, re.M)
    rows = [
        row.partition("|")[0].strip()
        for row in (facts[1] if facts else "").replace("\n|", "\n").lstrip("|").splitlines()
    ]
    wanted = [fact for fact in FACTS if fact not in left_out]
    if len(rows) != len(wanted) or not all(map(str.startswith, rows, wanted)):
        yield facts.start() if facts else 0, f"has not the rows {', '.join(wanted)} in its first table"
    yield from other_sections(text, prose, left_out)
    for table in re.finditer(r"^\|.*\n(?=\|---)", prose.partition("\n## Answers\n")[2].partition("\n## ")[0], re.M):
        if not table[0].endswith("| tell the user, or do |\n"):
            yield prose.index(table[0]), "has a table of answers that does not say what to tell the user, or do"


def other_sections(text, prose, left_out):
    """Where its sections are not those that each page has, in order, with a call and a body to paste between them."""
    before, after = ([name for name in names if name not in left_out] for names in (BEFORE, AFTER))
    headings = list(re.finditer(r"^## +(.+?) *$", prose, re.M))
    names = [heading[1] for heading in headings]
    ends = [*zip(before, names), *zip(after, names[-len(after) :])]
    if len(names) <= len(ends) or not all(re.fullmatch(wanted, name) for wanted, name in ends):
        yield 0, f"has not the sections {', '.join(before)}, its calls, {', '.join(after)}"
        return
    calls = text[headings[len(before)].start() : headings[-len(after)].start()]
    for language in ("sql", "text", "json"):
        if f"\n```{language}\n" not in calls:
            yield headings[len(before)].start(), f"has no block of {language} among its calls"


def faults(root, path, text, folders):
    """Where something is wrong in a file, and what."""
    yield from ((hit.start(), "cites a folder that is not of this repository") for hit in FOREIGN.finditer(text))
    if path.suffix == ".md":
        prose = without_fences(text)
        links = LINK.finditer(CODE.sub(lambda code: blank(code[0]), prose))
        yield from ((hit.start(), broken_link(root, path, hit[1])) for hit in links)
        for hit in CODE.finditer(prose):
            yield from ((hit.start(), what) for what in broken_paths(root, hit[1], folders))
        yield from broken_commands(root, text, folders)
        yield from too_long(root, path, text)
        if path.parent == root / VENDORS and path.stem != "README":
            yield from other_shape(path, text)


def broken(root):
    files = files_of(root)
    folders = {path.relative_to(root).parts[0] for path in files if path.parent != root}
    for path in files:
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found = sorted((text.count("\n", 0, at) + 1, what) for at, what in faults(root, path, text, folders) if what)
        yield from (f"{path.relative_to(root)}:{number} {what}" for number, what in found)


def other_versions(root):
    """Where META.json has another version than what it speaks of."""
    meta = json.loads((root / "META.json").read_text())
    pairs = [(meta["version"], "Cargo.toml", r'^version = "(.+)"$')]
    pairs += [(one["version"], one["file"], r"^default_version = '(.+)'$") for one in meta["provides"].values()]
    for version, file, pattern in pairs:
        there = re.search(pattern, (root / file).read_text(), re.M)[1]
        if version != there:
            yield f"META.json says {version}, and {file} says {there}"


def unnamed_vendors(root):
    """Where a vendor with a dialect is not named, though all others are; as iServeU and REL-ID may be written."""
    vendors = [path.stem for path in sorted((root / DIALECTS).glob("*.rs")) if path.stem != "sandbox"]
    for list_ in LISTS:
        text = (root / list_).read_text().lower().replace("-", "")
        yield from (f"{list_} does not name {vendor}, which has a dialect" for vendor in vendors if vendor not in text)


def main(root):
    found = [*broken(root), *long_code(root), *other_versions(root), *unnamed_vendors(root)]
    documents = sum(path.suffix == ".md" for path in files_of(root))
    print("\n".join(f"   {line}" for line in found) or f"   documents: {documents}, and what they point to is there")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()))
