"""Promise: `psql -f monitoring/overview.sql` is one screen in a terminal of 80 columns and 24 lines, anew every 2 seconds, for a
role with pg_monitor and no more: what is wrong and what to do about it, how each provider is, with the vendor's last words,
and how the latest calls ended. pyte is the terminal."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

import pyte
import pytest

from chain import MONITORING
from trouble import SENDERS, Trouble

from cluster import BINDIR
from conftest import Gateway, until

pytest_plugins = ["conftest"]

ROLE = "onlooker"
COLUMNS, LINES = 80, 24


class Terminal:
    """psql in a pseudo-terminal, and what stands on its screen."""

    def __init__(self, gateway):
        arguments = [
            str(BINDIR / "psql"),
            "-X",
            "-h",
            str(gateway.cluster.directory),
            "-p",
            str(gateway.cluster.port),
            "-U",
            ROLE,
        ]
        self.screen = pyte.Screen(COLUMNS, LINES)
        self.stream = pyte.ByteStream(self.screen)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(arguments[0], [*arguments, "-d", gateway.database, "-f", str(MONITORING / "overview.sql")])
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))

    def rows(self):
        """The screen once it stands still, which is for almost 2 seconds."""
        while select.select([self.fd], [], [], 0.2)[0]:
            self.stream.feed(os.read(self.fd, 65536))
        return [row.rstrip() for row in self.screen.display]

    def stop(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def gateway(shared_cluster, database, simulator):
    with Gateway(shared_cluster, database, simulator) as gateway:
        gateway.execute(f"CREATE ROLE {ROLE} LOGIN; GRANT pg_monitor TO {ROLE}")
        yield gateway
        gateway.execute(f"DROP ROLE {ROLE}")


@pytest.fixture
def terminal(gateway):
    terminal = Terminal(gateway)
    yield terminal
    terminal.stop()


def sees(terminal, *patterns):
    """Waits until all of it is on one screen, and nothing is beyond its edges."""
    rows = until(
        lambda: all(re.search(pattern, "\n".join(terminal.rows()), re.M) for pattern in patterns) and terminal.rows(),
        patterns,
        30,
    )
    # The first line is the first, so nothing was scrolled away; the cursor has the last.
    assert re.match(
        r"otp_gateway \d+\.\d+\.\d+, database test_\w+ +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d$", rows[0]
    ), rows
    assert rows[-1] == "" and not any("ERROR" in row for row in rows), rows
    print("\n".join(rows))
    return rows


def test_all_is_well(gateway, terminal):
    gateway.create_provider("ideamart")
    assert gateway.send()["outcome"] == "sent"
    rows = sees(terminal, r"^  ok  all \d+ checks$", r"^\d\d:\d\d:\d\d  ideamart +send    sent +1$")
    assert [row for row in rows if row.startswith("ideamart")] == [
        "ideamart             0             0     0/256     -"
    ]


def test_a_bad_hour(gateway, terminal):
    """All that a vendor and an owner can do at once, at providers with long names."""
    trouble = Trouble(gateway)
    long = "the_one_that_was_set_up_first_and_has_a_very_long_name"
    gateway.create_provider(long, "ideamart", paused="true", provider_limit="4 per hour")
    words = "the gateway is down, please come back later"
    gateway.simulator.fault("status", "msg91", "send", status=503, body=words)
    gateway.simulator.fault("hold", "twilio", "send", times=1)
    trouble.traffic.pests = True
    with trouble.traffic:
        rows = sees(
            terminal,
            r"^CRIT provider   \d\d:\d\d:\d\d msg91 failed several times in a row: nothing is sent$",
            rf"^WARN paused +option paused: nothing is sent through$",
            r"^ {25}Do: \S",
            r"^twilio +[1-9]\d* +\d+s +0 +\d+/1 ",
            r"^msg91 .* OPEN \d\d:\d\d unknown$",
            r"^  \d+ failures in a row since \d\d:\d\d:\d\d: .*HTTP 503",
            # All of the vendor's words, and all of what to do.
            rf"^  .*{words}$",
            r"^ {25}    after ALTER SERVER or ALTER USER MAPPING\.$",
            r"^\d\d:\d\d:\d\d  msg91 +send +blocked +breaker +[1-9]\d*$",
        )
        assert all(len(row) <= COLUMNS for row in rows)
        # Nobody is named.
        assert not any(role in row for row in rows for role in SENDERS)
    gateway.simulator.clear_faults()
    trouble.forget()


def test_more_than_a_screen(gateway, terminal):
    """Of many providers that fail those are there that there is room for, and a line that says where the others are."""
    for number in range(8):
        gateway.create_provider(f"vendor_{number}", "ideamart")
    gateway.simulator.fault("status", "ideamart", "send", status=503)
    for number in range(8):
        until(lambda: gateway.send(f"vendor_{number}", vendor="ideamart")["outcome"] == "blocked", "the breaker opens")
    rows = sees(terminal, r"^ \.\.\.  and more: SELECT \* FROM otp_gateway\.health\(\) WHERE level > 0$")
    assert sum("OPEN" in row for row in rows) == 3 and sum("HTTP 503" in row for row in rows) == 3
    assert sum(bool(re.match(r"\d\d:\d\d:\d\d  vendor_\d", row)) for row in rows) >= 2
