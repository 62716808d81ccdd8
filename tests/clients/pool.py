#!/usr/bin/python3
"""Measures how many connections a pool needs, for docs/clients.md: calls come at random, as people do, so many a second;
the vendor takes its time; each call takes a connection out of a pool of that size, and gives it back. Prints how long
calls waited for one. PG_CONFIG names the Postgres, as for the tests; the simulator is built by `make build-simulator`."""

import collections
import queue
import random
import sys
import threading
import time

import psycopg2

from conftest import SCHEMA, Place
from cluster import Cluster
from simulator import Simulator

RATE, VENDOR, SECONDS = 20, 0.4, 30
SIZES = (6, 8, 10, 12, 14, 16)
SEND = "SELECT outcome FROM otp.otp_send('vendor', jsonb_build_object('mobile', %s))"
ENQUEUE = "SELECT verification_id FROM otp.otp_enqueue('vendor', jsonb_build_object('mobile', %s))"


def measured(place, size, statement):
    """For each call: how long it waited for a connection, and when it was done with it."""
    pool, waited, held = queue.Queue(), [], []
    for _ in range(size):
        connection = psycopg2.connect(place.url())
        connection.autocommit = True
        pool.put(connection)

    def call(number):
        began = time.monotonic()
        connection = pool.get()
        got = time.monotonic()
        connection.cursor().execute(statement, (number,))
        pool.put(connection)
        waited.append(got - began)
        held.append(time.monotonic() - got)

    end, threads = time.monotonic() + SECONDS, []
    while time.monotonic() < end:
        threads.append(threading.Thread(target=call, args=(place.number(),)))
        threads[-1].start()
        time.sleep(random.expovariate(RATE))
    for thread in threads:
        thread.join()
    while not pool.empty():
        pool.get().close()
    return sorted(waited), sorted(held)


def share(values, part):
    return values[min(int(len(values) * part), len(values) - 1)]


def row(name, size, waited, held):
    figures = [f"{share(waited, part) * 1000:.0f} ms" for part in (0.5, 0.95, 0.99)]
    print(f"| {name} | {size} | {' | '.join(figures)} | {share(held, 0.5) * 1000:.0f} ms |", flush=True)


def main():
    cluster, simulator = Cluster({"listen_addresses": "'127.0.0.1'"}).create(), Simulator()
    try:
        cluster.start()
        with cluster.session() as admin, admin.cursor() as cursor:
            cursor.execute(SCHEMA.format(url=simulator.url("ideamart")))
        place = Place(cluster, simulator)
        for operation in ("send", "verify"):
            simulator.fault("latency", "ideamart", operation, ms=int(VENDOR * 1000))
        print(
            "| call | connections | half wait at most | 95 of 100 | 99 of 100 | holds it for |\n|---|---|---|---|---|---|"
        )
        for size in SIZES:
            row("`otp_send`", size, *measured(place, size, SEND))
        row("`otp_enqueue`", 2, *measured(place, 2, ENQUEUE))
        left = "SELECT outcome, count(*)::int FROM otp_gateway.attempt WHERE operation = 'send' GROUP BY 1"
        time.sleep(2)
        print(collections.Counter(dict(place.rows(left))), file=sys.stderr)
        place.close()
    finally:
        simulator.stop()
        cluster.remove()


if __name__ == "__main__":
    main()
