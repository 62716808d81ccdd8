"""A bad hour, in seconds: traffic of two roles through four providers, and one trouble after another, of the simulator's."""

import threading
import time

from conftest import FLOWS, Gateway, until

# Two who send: their names are to be found in no label.
SENDERS = ("zwicky_shop", "zwicky_bank")
# What each is there for is said where its trouble is made.
PROVIDERS = {
    "ideamart": dict(enforce="observe", send_limit="3 per hour", provider_limit="5000 per hour"),
    "msg91": {},
    "twilio": dict(max_in_flight="1", timeout="60s"),
    "hyperverge": dict(timeout="1s", send_limit="3 per hour"),
}


class Trouble:
    def __init__(self, gateway):
        self.gateway, self.simulator = gateway, gateway.simulator
        for name, options in PROVIDERS.items():
            gateway.create_provider(name, **options)
        for role in SENDERS:
            gateway.execute(f"CREATE ROLE {role}; GRANT USAGE ON FOREIGN SERVER {', '.join(PROVIDERS)} TO {role}")
        self.traffic = Traffic(gateway)

    def play(self, step):
        """Each trouble has so many seconds."""
        with self.traffic:
            time.sleep(step)
            # A vendor that is slow.
            self.simulator.fault("latency", "ideamart", "send", ms=700)
            time.sleep(step)
            self.simulator.clear_faults()
            # One that is down, until its breaker opens.
            self.simulator.fault("status", "msg91", "send", status=503)
            until(lambda: self.is_open("msg91"), "the breaker opens", 60)
            time.sleep(step)
            # One that answers no more: what has gone is unknown.
            self.simulator.fault("hold", "hyperverge", "send", times=3)
            until(lambda: self.unknowns() >= 3, "three may have gone", 60)
            # Somebody's budget, and somebody who asks again and again.
            self.traffic.pests = True
            # A provider whose one place is taken: its queue grows.
            self.simulator.fault("hold", "twilio", "send", times=1)
            time.sleep(2 * step)
            self.simulator.clear_faults()
            self.simulator.release()
            self.traffic.pests = False
            # All is mended, and nobody waits for the breaker.
            self.gateway.execute("ALTER SERVER msg91 OPTIONS (ADD max_in_flight '64')")
            time.sleep(step)

    def is_open(self, provider):
        return self.gateway.execute(
            "SELECT breaker FROM otp_gateway.stat_provider WHERE provider = %s", (provider,)
        ) == [("open",)]

    def unknowns(self):
        [(count,)] = self.gateway.execute(
            "SELECT sum(attempts)::integer FROM otp_gateway.stat_attempt WHERE outcome = 'unknown'"
        )
        return count or 0

    def forget(self):
        """Its roles, once the database is gone or nothing of it matters."""
        self.gateway.drain()
        for role in SENDERS:
            self.gateway.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


class Traffic:
    """Somebody sends all the time; three of four type their code in, one of eight a wrong one first."""

    def __init__(self, gateway):
        self.gateway, self.simulator = gateway, gateway.simulator
        self.pests, self.stopped, self.error = False, False, None

    def __enter__(self):
        self.threads = [
            threading.Thread(target=self.run, args=(vendor, SENDERS[place % 2]), daemon=True)
            for place, vendor in enumerate(PROVIDERS)
        ]
        for thread in self.threads:
            thread.start()

    def __exit__(self, *_):
        self.stopped = True
        for thread in self.threads:
            thread.join(30)
        if self.error:
            raise self.error

    def run(self, vendor, role):
        try:
            with Gateway(self.gateway.cluster, self.gateway.database, self.simulator) as mine:
                mine.execute(f"SET ROLE {role}")
                self.flows(mine, vendor)
        except Exception as error:
            self.error = error

    def flows(self, mine, vendor):
        pest, count = mine.number(vendor), 0
        while not self.stopped:
            count += 1
            if vendor == "twilio":
                mine.enqueue(vendor)
            elif self.pests and vendor != "msg91":
                mine.send(vendor, pest)
            else:
                self.flow(mine, vendor, count)
            time.sleep(0.15)

    def flow(self, mine, vendor, count):
        to = mine.number(vendor)
        row = mine.send(vendor, to)
        if row["outcome"] != "sent" or count % 4 == 0:
            return
        verify = lambda code: mine.verify(row["verification_id"], code, **FLOWS[vendor]["verify"])
        if count % 8 == 1:
            verify(self.simulator.wrong(vendor, to))
        assert verify(self.simulator.code(vendor, to))["outcome"] == "approved"
