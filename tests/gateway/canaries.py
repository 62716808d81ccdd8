"""What a run of the tests must leave nowhere at rest: the numbers, Aadhaar numbers, tokens, credentials and long codes that
its payloads carry, and the search for them. Each is made here, or registered here, with the test that uses it; so is
every number that stands in a test's own text. Codes of the usual four to six digits are found by chance in a time or a
page, and are not looked for."""

import base64
import os
import pathlib
import pwd
import re
import secrets
import shutil
import struct
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent

# Digits in a test's text that are nobody's secret.
VISIBLE = {
    # Test numbers are options of a server, which Postgres keeps.
    "770000001",
    "770000002",
    "770009998",
    "770009999",
    "9999900001",
    "9999900002",
    "779000001",
    "779000002",
    "775000001",
    "12025550123",
    # References: what the vendor, or the caller, names a flow by.
    "765386439745",
    # A time.
    "1763776800",
    # 127.0.0.1 as one number.
    "2130706433",
    # allowed_prefixes, an option of a server, and what begins like it.
    "44207946095812",
    "442079460958",
}


# Tests with tables of their own, as an application has.
KEEP_NUMBERS = {"test_trigger.py", "test_hostile.py", "test_orm.py"}


def digits(n):
    # No leading zero, and no group of four zeros at the end, which a numeric leaves out.
    while True:
        value = "9" + "".join(secrets.choice("0123456789") for _ in range(n - 1))
        if not value.endswith("0000"):
            return value


def word(prefix):
    return prefix + secrets.token_hex(9)


class Canary:
    def __init__(self, in_own_table):
        self.in_own_table = in_own_table
        self.test = os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0]
        # Made outside of any test, it belongs to all.
        self.made_at = time.time() if self.test else 0.0


class Canaries:
    """What must never be found, with every form of it."""

    def __init__(self):
        self.texts, self.numbers = {}, {}
        # Numbers that are taken, and not looked for.
        self.crowd = set()
        self.files = None

    def text(self, value, in_own_table=False):
        self.texts.setdefault(value, Canary(in_own_table))
        return value

    def secret(self, prefix):
        return self.text(word(prefix))

    def number(self, n=10):
        """The digits that every spelling of a number has in it."""
        return self.digits(digits(n))

    def digits(self, value, in_own_table=False):
        """`in_own_table`: the test keeps it in a table of its own, where it stands for all to see; the log and our tables
        are another matter."""
        self.numbers.setdefault(value, Canary(in_own_table))
        return value

    def recipient(self, form, in_own_table=False):
        """A recipient that nobody else has: `form` says how many digits come after what."""
        while True:
            # After the first, no zero: tests that count numbers up by themselves begin low.
            drawn = form.format(int(secrets.choice("123456789") + digits(7)))
            if not drawn.isdigit():
                return self.text(drawn, in_own_table)
            national = drawn.lstrip("0")
            if national not in self.numbers and national not in self.crowd:
                self.digits(national, in_own_table)
                return drawn

    def sample(self, recipients, size=50):
        """Of many that go the same way so many are looked for: of tens of thousands, one or two stand in ids and times by
        chance."""
        for recipient in recipients[size:]:
            national = recipient.lstrip("0")
            self.crowd.add(national)
            self.numbers.pop(national, None)

    def visible(self, *recipients):
        """Postgres itself says them, before anything of ours runs."""
        for recipient in recipients:
            del self.numbers[recipient.lstrip("0")]

    def code(self, value):
        """One that is too long to be found by chance."""
        if len(value) >= 9:
            self.text(value)
        return value

    def read_sources(self):
        """Every number that is written down in a test."""
        kept, others = {}, {}
        for path in [*HERE.glob("test_*.py"), *HERE.parent.glob("regress/sql/*.sql")]:
            for value in re.findall(r"(?<![\d.])\d{9,14}(?!\d)", path.read_text()):
                value = re.sub(r"^(94(?=\d{9}$)|91(?=\d{10}$))", "", value.lstrip("0"))
                if len(value) >= 9 and value not in VISIBLE:
                    (kept if path.name in KEEP_NUMBERS else others)[value] = path.name
        for value, test in others.items():
            for own, holder in kept.items():
                # A part of it, too: it is found wherever a page of WAL ends within the longer one.
                if value in own or own in value:
                    raise ValueError(f"{test}: {value} stands, as {own}, in a table of {holder}'s; take another number")
        for value, test in (kept | others).items():
            self.digits(value, in_own_table=value in kept)
            self.numbers[value].test = test
            self.numbers[value].made_at = 0.0
        return self

    def since(self, moment):
        """Those that were made since then, and those of all tests."""
        some = Canaries()
        for mine, theirs in ((self.texts, some.texts), (self.numbers, some.numbers)):
            theirs.update(
                {value: canary for value, canary in mine.items() if canary.made_at >= moment or canary.made_at == 0}
            )
        return some

    def in_file(self, value):
        """The path of a file that holds a credential, outside of every cluster, as the server reads it."""
        if self.files is None:
            self.files = pathlib.Path(tempfile.mkdtemp(prefix="otp_secrets_", dir="/tmp"))
            self.files.chmod(0o755)
        path = self.files / secrets.token_hex(8)
        path.write_text(value + "\n")
        path.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(path, *pwd.getpwnam("postgres")[2:4])
        return path

    def remove_files(self):
        if self.files is not None:
            shutil.rmtree(self.files)
            self.files = None

    def canary(self, value):
        return self.texts.get(value) or self.numbers[value]

    def needles(self):
        """As text, in lower and upper case."""
        found = {}
        for value in (*self.texts, *self.numbers):
            found[value] = value
            found[value.encode().hex()] = value
            # Base64 of anything that holds it: at each of the three places where it may begin.
            for before in range(3):
                coded = base64.b64encode(b"\0" * before + value.encode()).decode()
                coded = coded[(before * 8 + 5) // 6 :].rstrip("=")
                coded = coded[: (len(value) * 8 - (6 - before * 8 % 6) % 6) // 6]
                if len(coded) >= 10:
                    found[coded] = value
        for value in self.numbers:
            for parts in [
                (value[:5], value[5:]),
                (value[:3], value[3:6], value[6:]),
                (value[:2], value[2:5], value[5:]),
            ]:
                for sign in " -":
                    found[sign.join(parts)] = value
            if len(value) == 12:
                found[" ".join((value[:4], value[4:8], value[8:]))] = value
        return found | {needle.upper(): value for needle, value in found.items() if value in self.texts}

    def numerics(self):
        """A number of 9 to 12 digits as Postgres' numeric holds it, in jsonb too: after the header, groups of four digits,
        two bytes each."""
        padded = {value.rjust(12, "0"): value for value in self.numbers if len(value) <= 12}
        return {
            struct.pack("<3h", *(int(group[at : at + 4]) for at in (0, 4, 8))): value for group, value in padded.items()
        }


def outside_ids(data, needle):
    """Where it stands, with what is around it; None: within what Postgres makes up by itself alone, where of thousands of
    numbers one is found by chance: random ids in hexadecimal, and the version of a column (from 15.20 on)."""
    around = lambda at: data[max(0, at - 24) : at + len(needle) + 24]
    if not needle.isdigit():
        return around(data.find(needle.encode()))
    # As far as the id goes to both sides, and no further than a few hundred bytes.
    for found in re.finditer(needle.encode(), data):
        if re.search(rb"pg_attver=\d*$", data[max(0, found.start() - 20) : found.start()]):
            continue
        before = re.search(rb"[0-9a-f-]*$", data[max(0, found.start() - 200) : found.start()])[0]
        after = re.match(rb"[0-9a-f-]*", data[found.end() : found.end() + 200])[0]
        if len(before + after) + len(needle) < 24 or not re.search(rb"[a-f]", before + after):
            return around(found.start())
    return None


def contents(path):
    """What is in a file. Of a segment of WAL without the headers of its pages, which stand in the middle of an id that goes
    on over the end of a page."""
    data = path.read_bytes()
    if path.parent.name != "pg_wal":
        return data
    page = 8192
    return b"".join(data[at + (24 if at else 40) : at + page] for at in range(0, len(data), page))


NUMERIC_HEADER = b"\x02\x80"


def search(directory, canaries):
    """Where, in any file below, what was found, and of which test, for every canary."""
    hits = set()
    # What a test keeps in a table of its own is in the cluster's files and WAL, but not in the log nor in our tables.
    is_text = re.compile(r"/(server\.log|dump/)").match

    def hit(file, what, value):
        canary = canaries.canary(value)
        if not canary.in_own_table or is_text(file):
            hits.add(f"{file}:{what}" + (f" of {canary.test}" if canary.test else ""))

    needles = canaries.needles()
    with tempfile.NamedTemporaryFile("w", suffix=".needles") as file:
        file.write("".join(f"{needle}\n" for needle in needles))
        file.flush()
        # One pass over all of it; -o shows the needle alone, -Z ends the file's name.
        grep = subprocess.run(
            ["grep", "-r", "-a", "-o", "-F", "-H", "-Z", "-f", file.name, str(directory)],
            stdout=subprocess.PIPE,
            env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
        )
        assert grep.returncode in (0, 1)
    for path, needle in {tuple(line.decode().split("\0")) for line in grep.stdout.splitlines()}:
        if context := outside_ids(contents(pathlib.Path(path)), needle):
            hit(path.removeprefix(str(directory)), f"{needle} in {context!r}", needles[needle])
    numerics = canaries.numerics()
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            for match in re.finditer(re.escape(NUMERIC_HEADER) + rb"(?=(.{6}))", path.read_bytes(), re.DOTALL):
                if match[1] in numerics:
                    hit(f"/{path.relative_to(directory)}", f"number {numerics[match[1]]}", numerics[match[1]])
    return sorted(hits)


def control(value):
    canaries = Canaries()
    canaries.text(value)
    return canaries


# Of this run.
RUN = Canaries().read_sources()
