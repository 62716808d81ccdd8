#!/usr/bin/env python3
"""What the library holds of other people's work: each crate with its licence, which most of them ask for of whoever
passes a binary on.

    third_party.py texts FEATURE    each crate with the texts that come with its source
    third_party.py dep5 FEATURE     as paragraphs of Debian's copyright file; where we may choose, Apache-2.0
"""

import json
import pathlib
import re
import subprocess
import sys

COMMON = "/usr/share/common-licenses"  # Debian has these texts once for all packages, and asks not to repeat them.

STANDARD_LIBRARY = """\
Files: vendor/rust-std/*
Copyright: the Rust Project Developers
License: Apache-2.0
"""


def cargo(*words):
    return subprocess.run(["cargo", *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def crates(feature):
    """Those that are linked: no build scripts, no macros' own crates, nothing for other machines."""
    tree = cargo(
        *"tree --locked --package otp_gateway --no-default-features --features".split(),
        feature,
        *"--edges normal,no-proc-macro --prefix none --format {p}".split(),
    )
    held = {tuple(line.split()[:2]) for line in tree.splitlines()}
    host = re.search(r"^host: (.*)$", subprocess.check_output(["rustc", "-vV"], text=True), re.M)[1]
    metadata = json.loads(cargo(*"metadata --locked --format-version 1 --filter-platform".split(), host))
    found = [one for one in metadata["packages"] if one["source"] and (one["name"], f"v{one['version']}") in held]
    return sorted(found, key=lambda one: (one["name"], one["version"]))


def texts(crate):
    """The licences, copyrights and notices in the crate's folder: file name and text."""
    folder = pathlib.Path(crate["manifest_path"]).parent
    named = [path for path in folder.iterdir() if re.match(r"LICEN[CS]E|COPYING|NOTICE|COPYRIGHT", path.name, re.I)]
    return [(path.name, path.read_text(errors="replace").strip()) for path in sorted(named) if path.is_file()]


def licence(crate):
    """In Debian's words: SPDX's AND and OR in lower case, and one of what we may choose from."""
    words = crate["license"].replace("/", " OR ").replace("(", "").replace(")", "")
    return " and ".join(sorted({chosen(part.strip().split(" OR ")) for part in words.split(" AND ")}))


def chosen(names):
    names = [name.strip() for name in names]
    return next((name for name in ("Apache-2.0", "MIT") if name in names), names[0])


def holders(crate):
    """Who has the copyright, as its texts say; where they do not, its authors."""
    # The appendix of Apache's licence has one to fill in, its text says the word, and a licence may have its own.
    lines = [
        line.strip(" */#")
        for _, text in texts(crate)
        for line in text.splitlines()
        if re.match(r"\s*Copyright\b.*\d{4}", line, re.I) and not re.search(r"\[yyyy\]|\{yyyy\}", line)
    ]
    return list(dict.fromkeys(lines)) or crate["authors"] or [f"the authors of {crate['name']}"]


def full_text(name, held):
    """Of a crate that is under this licence alone, without whose copyright it is."""
    for crate in held:
        if crate["license"] == name and len(texts(crate)) == 1:
            lines = texts(crate)[0][1].splitlines()
            whose = re.compile(r"\s*(Copyright\b.*\d{4}|All rights reserved)", re.I)
            kept = [line.rstrip() for line in lines if not whose.match(line)]
            return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
    sys.exit(f"third_party.py: no crate has the text of {name} alone")


def folded(text):
    return "\n".join(f" {line}" if line.strip() else " ." for line in text.splitlines())


def main(form, feature):
    held = crates(feature)
    if form == "texts":
        for crate in held:
            print(f"{crate['name']} {crate['version']}: {crate['license']}\n")
            print(*[f"-- {name}\n\n{text}\n" for name, text in texts(crate)], "-" * 80, sep="\n")
        return
    print(STANDARD_LIBRARY)
    needed = set()
    for crate in held:
        needed |= set(licence(crate).split(" and "))
        print(f"Files: vendor/{crate['name']}-{crate['version']}/*")
        print(f"Copyright: {folded(chr(10).join(holders(crate))).strip()}")
        print(f"License: {licence(crate)}\n")
    for name in sorted(needed):
        print(f"License: {name}")
        common = f"On Debian systems the text of this licence is in {COMMON}/{name}."
        print(folded(common if name == "Apache-2.0" else full_text(name, held)), end="\n\n")


main(*sys.argv[1:])
