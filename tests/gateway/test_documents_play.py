"""Promise: the documents work as they are written. Every ```sql block of every *.md file is played, in order, in one psql
session for each document, in a database of its own; where a ```text block follows, it is what psql shows (ids, times,
codes, padding and row counts aside), errors included; where none follows, nothing fails and nothing is warned of. (That
what a document names is there: tests/documents.py and test_reference.py.)

How a document is written, so that it can be played:

- Its database has Postgres and no more. What else it needs it makes, or it says "**You need:** [...](...#section)": the
  blocks of that section are played before, and so on for what that document needs.
- A vendor's server without a `base_url` is pointed to the simulator when it is made; 127.0.0.1:8800 to :8803 are the
  simulator's ports; files in /etc/otp_gateway/ are there, with something in them. Nothing leaves this machine.
- 265098 is the code that the phone shows: in its place stands the one that the simulator has sent last.
- In a text block `...` stands for anything in its line, and a line `...` for any lines, or none.
- OTP_GOLDEN=write writes the text blocks anew that differ: read the difference.
- psql runs in the repository's folder, as a superuser, with psql's own settings but for --quiet.
"""

import contextlib
import json
import os
import pathlib
import re
import subprocess
import threading
import urllib.parse

import pytest

from cluster import BINDIR, Cluster
from simulator import VENDORS

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Other languages are not SQL, and are not played.
LANGUAGES = {
    "sql",
    "text",
    "sh",
    "ini",
    "json",
    "python",
    "javascript",
    "java",
    "rust",
    "php",
    "ruby",
    "plpgsql",
    "log",
    "yaml",
}
FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.M | re.S)
NEEDS = re.compile(r"^\*\*You need:\*\*(.*?)\n\n", re.M | re.S)
LINK = re.compile(r"\]\(([^()#\s]*)#([\w-]+)\)")
SHOWN_CODE = "265098"
CREDENTIALS = "/etc/otp_gateway/"
MARK = "- - that was the block - -"
PORTS = {"8800": "control", "8801": "http", "8802": "https", "8803": "mtls"}


def documents():
    names = subprocess.check_output(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"], text=True
    )
    return sorted({ROOT / name for name in names.split("\0") if name and (ROOT / name).exists()})


class Block:
    def __init__(self, path, text, found):
        self.at = f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, found.start()) + 1}"
        self.language, self.code, self.shown = found[1], found[2], None


def blocks(path, text=None):
    """The fenced blocks; each ```sql block with the ```text block that follows it, if only blank lines are between."""
    text = path.read_text() if text is None else text
    found, last, end = [], None, 0
    for fence in FENCE.finditer(text):
        block = Block(path, text, fence)
        if block.language == "text" and last is not None and not text[end : fence.start()].strip():
            last.shown = block.code
        found.append(block)
        last, end = (block if block.language == "sql" else None), fence.end()
    return found


def anchor(heading):
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


def section(path, name):
    """From that heading to the next one of its level."""
    headings = [found for found in re.finditer(r"^(#+) (.+?)$", FENCE.sub(same_length, path.read_text()), re.M)]
    for number, found in enumerate(headings):
        if anchor(found[2]) == name:
            ends = (next.start() for next in headings[number + 1 :] if len(next[1]) <= len(found[1]))
            return path.read_text()[found.start() : next(ends, None)]
    raise AssertionError(f"{path.name} has no section {name}")


def same_length(fence):
    return re.sub(r"[^\n]", " ", fence[0])


def played_before(path, seen=()):
    """The blocks of the sections that a document says it needs."""
    needs = NEEDS.search(path.read_text())
    before = []
    for file, name in LINK.findall(needs[1]) if needs else []:
        there = (path.parent / file).resolve() if file else path
        assert (there, name) not in seen, f"{path.name} needs what needs it"
        for block in played_before(there, (*seen, (there, name))) if there != path else []:
            before += [block] if block.at not in {one.at for one in before} else []
        # Its line in the file is told apart by the section's text alone.
        before += [block for block in blocks(there, section(there, name)) if block.language == "sql"]
    return before


class Psql:
    """One session, fed block by block."""

    def __init__(self, cluster, database, simulator):
        self.cluster, self.simulator = cluster, simulator
        command = [
            BINDIR / "psql",
            "-X",
            "-q",
            "-h",
            cluster.directory,
            "-p",
            str(cluster.port),
            "-U",
            "postgres",
            "-d",
            database,
        ]
        self.process = subprocess.Popen(
            # Standard output by lines, so that errors stand where they belong.
            ["stdbuf", "-oL", *command, "-P", "pager=off", "-P", "footer=off"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OTP_SIMULATOR_CONTROL": simulator.at["control"]},
        )

    def play(self, code):
        """What psql shows of it. The code that the phone shows is there once what stands before it has run."""
        before = code.rpartition(SHOWN_CODE)[0]
        end = max((found.end() for found in re.finditer(r"(?:;|\\gset)[^\n]*\n", before)), default=0)
        return "".join(self.play_part(part) for part in (code[:end], code[end:]) if part)

    def play_part(self, code):
        guard = threading.Timer(60, self.process.kill)
        guard.start()
        try:
            self.process.stdin.write(f"{self.here(code)}\n\\echo '{MARK}'\n")
            self.process.stdin.flush()
            lines = list(iter(self.process.stdout.readline, f"{MARK}\n")) if self.process.poll() is None else []
        finally:
            guard.cancel()
        assert self.process.poll() is None, "psql has ended:\n" + "".join(lines)
        return self.there("".join(lines))

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def here(self, code):
        if SHOWN_CODE in code and self.simulator.count(operation="send"):
            last = self.simulator.log(operation="send")[-1]
            code = code.replace(SHOWN_CODE, self.simulator.code(last["vendor"], last["recipient"]))
        for port, name in PORTS.items():
            at = urllib.parse.urlsplit(self.simulator.at[name]).netloc
            code = code.replace(f"127.0.0.1:{port}", at).replace(f"localhost:{port}", at)
        return code.replace(CREDENTIALS, f"{self.files()}/")

    def there(self, shown):
        for port, name in PORTS.items():
            shown = shown.replace(urllib.parse.urlsplit(self.simulator.at[name]).netloc, f"127.0.0.1:{port}")
        return shown.replace(f"{self.files()}/", CREDENTIALS)

    def files(self):
        return self.cluster.directory / "etc"


REDIRECT = """
    CREATE FUNCTION public.to_the_simulator() RETURNS event_trigger LANGUAGE plpgsql AS $$
    DECLARE one record;
    BEGIN
      -- A described vendor is known by its server's name.
      FOR one IN SELECT srvname, vendor FROM pg_foreign_server AS s JOIN pg_foreign_data_wrapper AS w ON w.oid = srvfdw,
        coalesce(nullif(substr(fdwname, 5), 'rest'), srvname::text) AS vendor WHERE vendor = ANY (%(vendors)s)
        AND NOT EXISTS (SELECT FROM unnest(srvoptions) AS o WHERE o LIKE 'base\\_url=http://127.0.0.1%%')
      LOOP
        IF EXISTS (SELECT FROM pg_foreign_server, unnest(srvoptions) AS o WHERE srvname = one.srvname AND o LIKE 'base\\_url=%%')
        THEN EXECUTE format('ALTER SERVER %%I OPTIONS (SET base_url %%L, ADD allow_plain_http ''true'')',
          one.srvname, %(at)s || '/' || one.vendor);
        ELSE EXECUTE format('ALTER SERVER %%I OPTIONS (ADD base_url %%L, ADD allow_plain_http ''true'')',
          one.srvname, %(at)s || '/' || one.vendor);
        END IF;
      END LOOP;
    END $$;
    CREATE EVENT TRIGGER to_the_simulator ON ddl_command_end WHEN TAG IN ('CREATE SERVER')
    EXECUTE FUNCTION public.to_the_simulator();
"""


@pytest.fixture(scope="module")
def place():
    """A cluster of their own: documents make roles, and change what the server is set to."""
    # Whatever a document says, nothing leaves this machine.
    cluster = Cluster({"otp_gateway.allowed_hosts": "'127.0.0.1'"}).create()
    try:
        yield cluster.start()
    finally:
        cluster.remove()


@contextlib.contextmanager
def session(place, simulator, needed):
    """psql in a database of its own; afterwards the cluster is as it was."""
    with place.session() as admin, admin.cursor() as cursor:
        cursor.execute("SELECT array_agg(rolname::text) FROM pg_roles")
        (roles,) = cursor.fetchone()
        etc = place.directory / "etc"
        etc.mkdir(exist_ok=True)
        for name in re.findall(rf"{CREDENTIALS}([\w.-]+)", needed):
            (etc / name).write_text(content(name, simulator))
        # As the documents say to: the server's alone.
        subprocess.run(["chmod", "-R", "go=", etc], check=True)
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", "postgres", etc], check=True)
        with place.database(extension=False) as name:
            with place.session(name) as owner:
                # What the documents say of databases that began before 15.
                owner.cursor().execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
                owner.cursor().execute(REDIRECT, {"vendors": [*VENDORS, "vonage"], "at": simulator.at["http"]})
            psql = Psql(place, name, simulator)
            try:
                yield psql
            finally:
                psql.close()
        # Documents may have made other databases.
        cursor.execute("SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1')")
        for (other,) in cursor.fetchall():
            cursor.execute(f'DROP DATABASE "{other}" WITH (FORCE)')
        cursor.execute("SELECT rolname FROM pg_roles WHERE rolname <> ALL (%s)", (roles,))
        for (role,) in cursor.fetchall():
            cursor.execute(f'DROP OWNED BY "{role}" CASCADE; DROP ROLE "{role}"')
        cursor.execute("ALTER SYSTEM RESET ALL")
        place.reload()


def content(name, simulator):
    """Of a file in /etc/otp_gateway/: an authority's certificate, a vendor's description as its page has it, a secret."""
    if name.endswith(".pem"):
        return (pathlib.Path(simulator.directory.name) / "tls/ca.pem").read_text()
    if name.endswith(".json"):
        (described,) = filter(is_description, blocks(ROOT / "docs/vendors" / f"{pathlib.Path(name).stem}.md"))
        return described.code
    return "4711\n"


def is_description(block):
    return block.language == "json" and "operations" in json.loads(block.code)


def plain(text):
    """Without what differs from run to run, and without psql's padding."""
    for pattern, same in [
        (r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<id>"),
        (r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:[+-]\d\d(?::\d\d)?)?", "<time>"),
        (r"\b\d\d-\d\d \d\d:\d\d:\d\d\b", "<time>"),
        (r"\b\d\d:\d\d:\d\d(?:\.\d+)?\b", "<span>"),
        (r"\b[0-9a-f]{30,64}\b", "<reference>"),
        (r"(?<![\w.])\d{6}(?![\w.])", "<code>"),
        (r"\b\d+ ms\b", "<ms>"),
        (r"-{3,}", "---"),
        (r"^-\[ RECORD (\d+) \][-+]*$", r"-[ RECORD \1 ]"),
    ]:
        text = re.sub(pattern, same, text, flags=re.M)
    lines = [
        re.sub(r"\s*([|+])\s*", r"\1", line).strip() if "|" in line or "-+-" in line else line.strip()
        for line in text.splitlines()
    ]
    lines = [re.sub(r"\s+", " ", line) for line in lines]
    return [line for line in lines if line and not re.fullmatch(r"\(\d+ rows?\)", line)]


def differs(shown, real):
    """Nothing, or how what a document shows is not what came."""
    lines = (
        r"(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n" for line in plain(shown)
    )
    pattern = "".join(lines)
    return (
        None
        if re.fullmatch(pattern, "".join(f"{line}\n" for line in plain(real)))
        else f"shown:\n{shown}\nplayed:\n{real}"
    )


def write(path, block, real):
    """What psql shows, in place of what the document says that it does."""
    real = "\n".join(line.rstrip() for line in real.splitlines()).strip("\n") + "\n"
    old, new = (f"{block.code}```\n```text\n{shown}```" for shown in (block.shown, real))
    text = path.read_text()
    assert text.count(old) == 1, f"{block.at}: no blank line between the blocks, please"
    path.write_text(text.replace(old, new))


PLAYED = [path for path in documents() if any(block.language == "sql" for block in blocks(path))]


@pytest.mark.parametrize("path", PLAYED, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_plays(place, simulator, path):
    before = played_before(path)
    own = [block for block in blocks(path) if block.language == "sql"]
    with session(place, simulator, "".join(block.code for block in [*before, *own])) as psql:
        for block in before:
            psql.play(block.code)
        for block in own:
            real = psql.play(block.code)
            if block.shown is not None:
                wrong = differs(block.shown, real)
                if wrong and os.environ.get("OTP_GOLDEN") == "write":
                    write(path, block, real)
                    continue
                assert wrong is None, f"{block.at}\n{wrong}"
            else:
                assert not re.search(r"^(?:.*: )?(?:ERROR|FATAL|WARNING):", real, re.M), (
                    f"{block.at}\n{block.code}\n{real}"
                )


@pytest.mark.parametrize("path", [path for path in PLAYED if path.parent.name == "vendors"], ids=lambda path: path.stem)
def test_a_body_can_be_pasted(place, simulator, path):
    """What a vendor's page has as JSON is the payload of a send, and the vendor takes it."""
    before = [block for block in [*played_before(path), *blocks(path)] if block.language == "sql"]
    bodies = [block.code for block in blocks(path) if block.language == "json" and not is_description(block)]
    assert bodies, f"{path.name} has no body to paste"
    with session(place, simulator, "".join(block.code for block in before)) as psql:
        for block in before:
            psql.play(block.code)
        for body in bodies:
            real = psql.play(f"SELECT outcome FROM otp.otp_send('{path.stem}', $body${body}$body$);\n")
            assert plain(real) == ["outcome", "---", "sent"], real


def test_every_block_says_what_it_is():
    """Or SQL could stand there that nobody plays; and an output is of the block before it, or it says of what."""
    for path in documents():
        for block in blocks(path):
            assert block.language in LANGUAGES, f"{block.at} is of no language that is known here: {block.language!r}"
            if block.language == "sql":
                ends = block.code.rstrip().splitlines()[-1]
                assert re.search(r";\s*(--.*)?$|\\g(set|x)?\b|^\\", ends), (
                    f"{block.at} ends in the middle of a statement"
                )


def test_a_difference_is_seen():
    """The comparison is none if everything is the same to it."""
    table = " a | b \n---+---\n 1 | x\n"
    assert differs(table, " a | b\n---+---\n 1 |  x \n(1 row)\n") is None
    assert differs(" a | b \n---+---\n...\n", table) is None
    for other in (
        table.replace("x", "y"),
        table.replace("a", "c"),
        table + " 2 | z\n",
        "ERROR:  no\n",
        table + "WARNING:  so\n",
    ):
        assert differs(table, other) is not None, other
    assert differs("\n", "ERROR:  no\n") is not None
