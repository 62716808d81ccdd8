"""Promise: what `make package` makes is what an administrator expects of a Debian package and of an archive: each file
in its place and no other, root's, with the checksums that are beside it; what it depends on is enough for its library;
no script of it runs on the server; the same bytes each time; and the containers' files fit what is made. Takes the
library that `make build` has built, in seconds; that a package installs and works is test.sh's promise."""

import hashlib
import io
import json
import os
import pathlib
import re
import subprocess
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PG_CONFIG = os.environ.get("PG_CONFIG", "/usr/bin/pg_config")
VERSION = json.loads((ROOT / "META.json").read_text())["version"]
LIBRARY = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"), "release/libotp_gateway.so")
SCHEMA = {path.name: path.read_bytes() for path in [ROOT / "otp_gateway.control", *ROOT.glob("sql/*/*.sql")]}


def output(*command):
    return subprocess.check_output([str(word) for word in command], text=True, cwd=ROOT)


MAJOR = re.match(r"PostgreSQL (\d+)", output(PG_CONFIG, "--version"))[1]
EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH") or output("git", "log", "-1", "--format=%ct"))
PACKAGE = f"postgresql-{MAJOR}-otp-gateway"


class Made:
    """What package.sh made in a directory."""

    def __init__(self, directory):
        output("packaging/package.sh", "--as-built", "--into", directory, PG_CONFIG)
        self.directory = pathlib.Path(directory)
        self.deb = next(self.directory.glob("*.deb"))
        self.archive = next(self.directory.glob("*.tar.gz"))

    def part(self, what):
        """The members of a part of the .deb, by name, and what is in its files."""
        data = subprocess.check_output(["dpkg-deb", f"--{what}", self.deb])
        return members(tarfile.open(fileobj=io.BytesIO(data)), "./")

    def field(self, name):
        return output("dpkg-deb", "--field", self.deb, name).strip()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("made"))


def members(archive, prefix):
    found = {}
    with archive:
        for member in archive.getmembers():
            name = member.name.removeprefix(prefix).strip("./") if member.isdir() else member.name.removeprefix(prefix)
            found[name] = member, archive.extractfile(member).read() if member.isfile() else None
    return found


def files(found):
    return {name: data for name, (_, data) in found.items() if data is not None}


def test_the_package_has_each_file_in_its_place(made):
    found = files(made.part("fsys-tarfile"))
    lib, share, doc = (
        f"usr/lib/postgresql/{MAJOR}/lib/",
        f"usr/share/postgresql/{MAJOR}/extension/",
        f"usr/share/doc/{PACKAGE}/",
    )
    assert found[f"{lib}otp_gateway.so"] == LIBRARY.read_bytes()
    assert {name.removeprefix(share): data for name, data in found.items() if name.startswith(share)} == SCHEMA
    for page in (
        "README.md",
        "SECURITY.md",
        "docs/operations.md",
        "contrib/quiet_role.sql",
        "monitoring/check_otp_gateway",
    ):
        assert found[doc + page] == (ROOT / page).read_bytes()
    assert {"copyright", "changelog.Debian.gz", "NEWS.Debian.gz", "changelog.gz", "third-party.txt.gz"} <= {
        name.removeprefix(doc) for name in found
    }
    elsewhere = [name for name in found if not name.startswith((share, doc)) and name != f"{lib}otp_gateway.so"]
    assert not elsewhere, elsewhere


def test_everything_is_roots_and_of_the_commits_time(made):
    archive = members(tarfile.open(made.archive), "")
    for name, (member, _) in [*made.part("fsys-tarfile").items(), *archive.items()]:
        assert (member.uid, member.gid, member.mtime) == (0, 0, EPOCH), name
        assert member.mode == (0o755 if member.isdir() else 0o644), f"{name} {member.mode:o}"


def test_nothing_of_it_runs_on_the_server(made):
    assert set(files(made.part("ctrl-tarfile"))) == {"control", "md5sums"}


def test_its_checksums_are_right(made):
    found = files(made.part("fsys-tarfile"))
    sums = dict(line.split("  ")[::-1] for line in files(made.part("ctrl-tarfile"))["md5sums"].decode().splitlines())
    assert sums == {name: hashlib.md5(data).hexdigest() for name, data in found.items()}
    output("sh", "-c", f"cd {made.directory} && sha256sum --quiet --check SHA256SUMS")


def test_it_says_what_it_is(made):
    architecture = output("dpkg", "--print-architecture").strip()
    assert made.deb.name == f"{PACKAGE}_{VERSION}-1_{architecture}.deb"
    said = [made.field(name) for name in ("Package", "Version", "Architecture", "Section")]
    assert said == [PACKAGE, f"{VERSION}-1", architecture, "database"], said


def test_it_depends_on_what_its_library_needs(made):
    """And on nothing that a Debian of the same age would have to look for."""
    depends = dict(re.match(r"(\S+)(?: \(>= (.*)\))?$", one).groups() for one in made.field("Depends").split(", "))
    assert set(depends) == {f"postgresql-{MAJOR}", "ca-certificates", "libc6", "libgcc-s1"}, depends
    symbols = re.findall(r"\bGLIBC_([\d.]+)", output("objdump", "-T", LIBRARY))
    newest = max(symbols, key=lambda version: [int(number) for number in version.split(".")])
    assert depends["libc6"] == newest, f"Depends on libc6 {depends['libc6']}, and the library takes symbols of {newest}"


def test_its_copyright_names_every_crate(made):
    found = files(made.part("fsys-tarfile"))
    copyright = found[f"usr/share/doc/{PACKAGE}/copyright"].decode()
    stanzas = [dict(re.findall(r"^(\S+): *(.*)", stanza, re.M)) for stanza in copyright.split("\n\n")]
    assert stanzas[0]["Format"].endswith("/copyright-format/1.0/")
    of_files = [stanza for stanza in stanzas if "Files" in stanza]
    assert all(stanza.get("Copyright") and stanza.get("License") for stanza in of_files)
    for crate in "ring", "tokio", "pgrx", "rustls", "reqwest":
        assert any(re.fullmatch(rf"vendor/{crate}-[\d.]+/\*", stanza["Files"]) for stanza in of_files), crate
    # Each licence that is named has its text, or says where Debian has it.
    named = {name for stanza in of_files for name in stanza["License"].split(" and ")}
    texts = {stanza["License"] for stanza in stanzas if "Files" not in stanza and "License" in stanza} | {"PostgreSQL"}
    assert named == texts, named ^ texts


def test_the_archive_has_the_same(made):
    name = made.archive.name.removesuffix(".tar.gz")
    assert name == f"otp_gateway-{VERSION}-pg{MAJOR}-{os.uname().machine}-linux-gnu"
    found = files(members(tarfile.open(made.archive), f"{name}/"))
    of_server = {path: data for path, data in found.items() if path.startswith(("lib/", "share/"))}
    schema = {f"share/extension/{file}": data for file, data in SCHEMA.items()}
    assert of_server == {"lib/otp_gateway.so": LIBRARY.read_bytes()} | schema
    assert found["licenses/otp_gateway.txt"] == (ROOT / "LICENSE").read_bytes()
    assert b"\nring 0." in found["licenses/third-party.txt"]


def test_it_has_the_same_bytes_each_time(made, tmp_path):
    again = Made(tmp_path)
    assert again.deb.read_bytes() == made.deb.read_bytes()
    assert again.archive.read_bytes() == made.archive.read_bytes()


def test_the_containers_files_fit_it(made):
    """What they copy is what is made, and what they name is of this version."""
    names = "Dockerfile", "Dockerfile.extension", "cluster.yaml"
    texts = {name: (ROOT / "packaging" / name).read_text() for name in names}
    for name, what in ("Dockerfile", made.deb), ("Dockerfile.extension", made.archive):
        copied = re.search(r"^COPY dist/(\S+) ", texts[name], re.M)[1].replace("${PG_MAJOR}", MAJOR)
        assert what in made.directory.glob(copied), f"{name} copies {copied}, and what is made is {what.name}"
    for name, text in texts.items():
        for version in re.findall(r"otp-gateway:([\d.]+)", text):
            assert version == VERSION, f"{name} names {version}"


def test_the_sources_are_what_pgxn_takes(made):
    """One folder of the name and version; all that git has of the last commit, and META.json in the middle of it."""
    output("packaging/dist.sh", "--into", made.directory)
    name = f"otp_gateway-{VERSION}"
    with zipfile.ZipFile(made.directory / f"{name}.zip") as archive:
        found = {path for path in archive.namelist() if not path.endswith("/")}
        meta = json.loads(archive.read(f"{name}/META.json"))
    assert found == {f"{name}/{path}" for path in output("git", "ls-tree", "-r", "--name-only", "HEAD").splitlines()}
    assert meta["name"] == "otp_gateway"
    provided = [f"{name}/{one[what]}" for one in meta["provides"].values() for what in ("file", "docfile")]
    assert provided and found.issuperset(provided)
