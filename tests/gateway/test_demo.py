"""Promise: `make demo` plays through by itself on a terminal, as a newcomer starts it: no pager comes up and waits for a key,
and whatever it shows fits the lines of an ordinary terminal, but for the statements themselves."""

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

DEMO = pathlib.Path(__file__).resolve().parents[2] / "demo/demo.py"
LINES, COLUMNS = 24, 80


def on_a_terminal(command, timeout, **environment):
    """Its exit code, or None if it does not end, and what stood on the screen."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
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
        ["setsid", "--ctty", "--wait", *map(str, command)], stdin=slave, stdout=slave, stderr=slave,
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
    return note, {"PSQL_PAGER": f"touch {note}; read key </dev/tty", "TERM": "xterm"}


def test_a_pager_would_come_up(cluster, pager):
    """The control: on this terminal a table that is too wide has psql call one, and nothing goes on."""
    note, environment = pager
    psql = [BINDIR / "psql", "-X", "-h", cluster.directory, "-p", cluster.port, "-U", "postgres", "postgres"]
    code, _ = on_a_terminal([*psql, "-c", "SELECT repeat('x', 100)"], 1, **environment)
    assert code is None and note.exists()


def test_it_plays_through(pager):
    note, environment = pager
    code, shown = on_a_terminal([sys.executable, DEMO], 180, **environment)
    assert not note.exists(), shown[-2000:]
    assert code == 0, shown[-4000:]
    assert "All five vendors ended approved." in shown
    numbered = [int(number) for number in re.findall(r"^### (\d+)\. ", shown, re.M)]
    assert numbered == list(range(1, len(numbered) + 1)) and len(numbered) >= 11
    # Tables, and the lines under their heads.
    tables = re.findall(r"^(?:.*\n)-+(?:\+-+)*\n(?:.*\|.*\n)*", shown, re.M)
    assert len(tables) > 20
    assert [line for table in tables for line in table.splitlines() if len(line) > COLUMNS] == []
