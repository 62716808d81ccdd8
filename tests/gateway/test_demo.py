"""Promise: `make demo` plays through by itself on a terminal, as a newcomer starts it: no pager comes up and waits for a key.
The story is six scenes, each of them a screen; nothing is wider than the narrowest terminal, and what is meant to fail says
so before. `make demo ALL=1` goes on with every other vendor."""

import fcntl
import os
import pathlib
import pty
import re
import struct
import subprocess
import sys
import termios
import threading

import pytest

from cluster import BINDIR
from simulator import VENDORS
from vendors import wrapper

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "demo/demo.py"
# A laptop's terminal, as it comes up.
SCREEN = 50
NARROW, WIDEST = 80, 100
HEAD = re.compile(r"^(?:\x1b\[1m)?### (\d+) of (\d+)\. (.+?)(?:\x1b\[0m)?$", re.M)


def on_a_terminal(command, timeout, columns=NARROW, **environment):
    """Its exit code, or None if it does not end, and what stood on the screen."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    shown = []

    def read():
        try:
            while piece := os.read(master, 65536):
                shown.append(piece)
        except OSError:
            # Nobody has the other end open any more.
            pass

    reader = threading.Thread(target=read)
    reader.start()
    # Its terminal, not only its input and output: that is where a pager looks for a key.
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *map(str, command)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, **environment},
    )
    os.close(slave)
    code = ended(process, timeout)
    # Whatever still waits for a key gets as many as it likes, so that the demo takes its cluster away.
    while process.poll() is None:
        os.write(master, b"q\n")
        ended(process, 0.1)
    reader.join()
    os.close(master)
    return code, b"".join(shown).decode().replace("\r\n", "\n")


def ended(process, timeout):
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None


@pytest.fixture
def pager(tmp_path):
    """One that leaves a note, and then waits for a key as less does."""
    note = tmp_path / "called"
    return note, {"PSQL_PAGER": f"touch {note}; read key </dev/tty", "PAGER": f"touch {note}", "TERM": "xterm"}


def test_a_pager_would_come_up(cluster, pager):
    """The control: on this terminal a table that is too wide has psql call one, and nothing goes on."""
    note, environment = pager
    psql = [BINDIR / "psql", "-X", "-h", cluster.directory, "-p", cluster.port, "-U", "postgres", "postgres"]
    code, _ = on_a_terminal([*psql, "-c", "SELECT repeat('x', 100)"], 1, **environment)
    assert code is None and note.exists()


def scenes_of(shown):
    """(title, lines) of each scene."""
    heads = list(HEAD.finditer(shown))
    assert [(int(head[1]), int(head[2])) for head in heads] == [(n, len(heads)) for n in range(1, len(heads) + 1)]
    ends = [head.start() for head in heads[1:]] + [len(shown)]
    return [(head[3], shown[head.start() : end].splitlines()) for head, end in zip(heads, ends)]


@pytest.mark.parametrize("columns", [80, 120])
def test_the_story(pager, columns):
    note, environment = pager
    code, shown = on_a_terminal([sys.executable, DEMO], 180, columns, **environment)
    assert not note.exists(), shown[-2000:]
    assert code == 0, shown[-4000:]
    scenes = scenes_of(shown)
    assert len(scenes) == 6
    for title, lines in scenes:
        assert len(lines) <= SCREEN, title
    plain = re.sub(r"\x1b\[\d*m", "", shown)
    assert [line for line in plain.splitlines() if len(line) > NARROW] == []
    lines = plain.splitlines()
    errors = [number for number, line in enumerate(lines) if line.startswith(("ERROR", "psql", "WARNING"))]
    assert len(errors) == 1, [lines[number] for number in errors]
    # Before the statement, which may have several lines.
    assert any("meant to fail" in line for line in lines[errors[0] - 4 : errors[0]])


def test_everything(pager):
    note, environment = pager
    code, shown = on_a_terminal([sys.executable, DEMO, "--all"], 180, **environment)
    assert not note.exists() and code == 0, shown[-4000:]
    plain = re.sub(r"\x1b\[\d*m", "", shown)
    assert [line for line in plain.splitlines() if len(line) > WIDEST] == []
    # A scene of each vendor's own: its server is made there.
    missing = [
        vendor for vendor in VENDORS if f"CREATE SERVER {vendor} FOREIGN DATA WRAPPER {wrapper(vendor)}" not in plain
    ]
    assert missing == [] and "ALL=1" not in plain
    assert len(scenes_of(shown)) == len([*ROOT.glob("demo/scenes/*.sql"), *ROOT.glob("demo/more/*.sql")])


def test_a_scene_that_breaks_is_a_demo_that_fails(tmp_path):
    """It says which, and takes its cluster away: nobody learns from a demo that goes on over errors."""
    copy = tmp_path / "copy"
    for part in ("demo", "docs", "examples", "tests/gateway"):
        (copy / part).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", ROOT / part, copy / part], check=True)
    scene = copy / "demo/scenes/4_sign_up.sql"
    simulator = {"OTP_SIMULATOR": os.environ.get("OTP_SIMULATOR", str(ROOT / "target/release/simulator"))}
    for what, instead in {
        "'000000'": "'111111'",
        "INSERT INTO verified_phone": "SELECT 1;\n-- INSERT INTO verified_phone",
    }.items():
        text = (ROOT / "demo/scenes/4_sign_up.sql").read_text()
        assert what in text
        scene.write_text(text.replace(what, instead))
        done = subprocess.run(
            [sys.executable, copy / "demo/demo.py"],
            capture_output=True,
            text=True,
            env={**os.environ, **simulator},
            timeout=180,
        )
        assert done.returncode == 1 and "The demo failed: demo/scenes/4_sign_up.sql" in done.stderr, (
            done.stdout + done.stderr
        )
