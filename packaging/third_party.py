#!/usr/bin/env python3
"""Prints the crates that the library holds, each with its licence and the texts that come with its source: most licences
ask for that of whoever passes a binary on."""
import json
import pathlib
import subprocess
import sys

feature = sys.argv[1]
tree = subprocess.run(
    ["cargo", "tree", "--locked", "--offline", "-p", "otp_gateway", "--no-default-features", "--features", feature, "-e", "normal",
     "--prefix", "none", "--format", "{p}"],
    check=True, capture_output=True, text=True,
).stdout
held = {tuple(line.split()[:2]) for line in tree.splitlines()}
metadata = json.loads(
    subprocess.run(["cargo", "metadata", "--locked", "--offline", "--format-version", "1"], check=True, capture_output=True, text=True).stdout
)
for package in sorted(metadata["packages"], key=lambda package: (package["name"], package["version"])):
    if package["source"] is None or (package["name"], f"v{package['version']}") not in held:
        continue
    print(f"{package['name']} {package['version']}: {package['license'] or package['license_file']}")
    source = pathlib.Path(package["manifest_path"]).parent
    for text in sorted(path for path in source.iterdir() if path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE"))):
        if text.is_file():
            print(f"\n{text.read_text(errors='replace').strip()}\n")
    print("-" * 80)
