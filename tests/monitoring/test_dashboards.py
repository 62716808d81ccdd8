"""Promise: the two dashboards are what tests/monitoring/dashboards.py makes of the types of Grafana's own SDK; and every
query of every panel, run on a database that has seen trouble, by Prometheus or as a role with pg_monitor, returns the
columns that its panel needs. Their pictures (`OTP_GOLDEN=write` puts them into docs/img) are drawn by matplotlib out of the
same data: Grafana itself is in no registry that is reached, and has not rendered them."""

import datetime
import os
import time

import pytest

import dashboards
import panels
from chain import PLACE, ROOT, Chain
from trouble import SENDERS, Trouble

from canaries import RUN, Canaries, search
from conftest import Gateway

pytest_plugins = ["conftest"]

ROLE = "looker"
IS_GOLDEN = os.environ.get("OTP_GOLDEN") == "write"
PICTURES = ROOT / "docs/img" if IS_GOLDEN else PLACE / "pictures"
# Seconds for each trouble.
STEP = 20 if IS_GOLDEN else 2
# The week before: made up, and not played.
WEEK = """
INSERT INTO otp_gateway_internal.hourly_record (hour, provider_id, role_id, route_id, country, counts)
SELECT hour, p.id, r.id, 0, country, ARRAY[n, n - n / 20, n / 50, n / 30, n / 40, n - n / 20, ((n - n / 20) * share)::bigint, n, n / 9, n * 800000]
    || array_fill(n, ARRAY[11])
FROM generate_series(date_trunc('hour', now()) - interval '7 days', now() - interval '2 hours', interval '1 hour') AS hour,
    (VALUES ('ideamart', 94, 0.80, %(shop)s, 9), ('msg91', 91, 0.72, %(bank)s, 14)) AS v (provider, country, usual, role, size),
    LATERAL (SELECT
        (size * (5 + 4 * sin(extract(epoch FROM hour) / 13751)))::bigint AS n,
        -- A template that was changed on the third day, for five hours.
        CASE WHEN provider = 'msg91' AND hour BETWEEN now() - interval '60 hours' AND now() - interval '55 hours' THEN 0.15 ELSE usual END AS share
    ) AS l
JOIN otp_gateway_internal.identity AS p ON true
JOIN otp_gateway_internal.identity AS r ON true
WHERE p.name = provider AND r.name = role
"""


@pytest.fixture(scope="module")
def seen(shared_cluster, simulator_program):
    """The chain after the trouble, a session of the role that looks, and from when to when it was."""
    with shared_cluster.database() as name, Gateway(shared_cluster, name, simulator_program) as gateway:
        gateway.execute(f"CREATE ROLE {ROLE} LOGIN; GRANT pg_monitor TO {ROLE}")
        trouble = Trouble(gateway)
        chain = Chain(shared_cluster, name, ROLE, [])
        try:
            began = datetime.datetime.now(datetime.UTC)
            trouble.play(STEP)
            # The last of it is scraped.
            time.sleep(1)
            ended = datetime.datetime.now(datetime.UTC)
            gateway.execute(WEEK, dict(zip(("shop", "bank"), SENDERS)))
            with shared_cluster.session(name, user=ROLE) as session:
                yield chain, session, began, ended
            chain.stop()
            names = Canaries()
            for role in SENDERS:
                names.text(role)
            leaks = search(chain.directory, RUN) + search(chain.directory, names)
            assert not leaks, leaks
        finally:
            chain.remove()
            trouble.forget()
            gateway.execute(f"DROP ROLE {ROLE}")


def test_they_are_what_is_made():
    for path, text in dashboards.texts().items():
        assert path.read_text() == text, "tests/monitoring/dashboards.py write"


def test_on_call(seen):
    """Each query of each panel has series, and each series a name of its own."""
    chain, _, began, ended = seen
    data = []
    for panel in panels.panels("grafana-oncall.json"):
        found = panels.of_prometheus(
            panel, chain.prometheus, began, ended, step=max(1, STEP // 10), window=f"{max(4, STEP)}s"
        )
        for target in panel.targets:
            alone = panels.of_prometheus(panel, chain.prometheus, began, ended, targets=[target], window="4s")
            assert alone and all(alone), (panel.title, target["expr"])
            assert set(alone) <= set(found), panel.title
        data.append((panel, found))
    draw("OTP gateway: on call", data, "monitoring-oncall.png")
    shown = {panel.title: found for panel, found in data}
    assert {"sent", "provider_error", "blocked", "unknown"} <= set(shown["Sends, by outcome"])
    assert set(shown["Breakers"]) == {"ideamart", "msg91", "twilio", "hyperverge"}
    highest = lambda title, name: max(value for _, value in shown[title][name])
    assert highest("Breakers", "msg91") == 1 and highest("Breakers", "ideamart") == 0
    assert highest("Queue", "twilio may go") > 0 and highest("The oldest in the queue", "twilio") > 1
    assert highest("How long a send takes", "ideamart p95") > 0.5
    assert highest("Checks", "provider") == 2 and highest("Checks", "library") == 0
    assert {"send_limit", "breaker", "send_limit (observed)"} <= set(shown["Blocked, by rule"])
    assert highest("May have gone, or not", "hyperverge") > 0


def test_product(seen):
    _, session, _, ended = seen
    data = []
    for panel in panels.panels("grafana-product.json"):
        columns, rows = panels.of_postgres(panel, session, ended - datetime.timedelta(days=7), ended)
        assert rows, panel.title
        [target] = panel.targets
        if target["format"] == "time_series":
            check_series(panel, columns, rows)
            data.append((panel, panels.as_series(columns, rows)))
        else:
            if panel.kind == "stat":
                assert len(rows) == 1 and isinstance(rows[0][0], float) and len(columns) == 1, panel.title
            # A name that is overridden is a column.
            assert {override["matcher"]["options"] for override in panel.overrides} <= set(columns)
            data.append((panel, (columns, rows)))
    draw("OTP gateway: product", data, "monitoring-product.png")
    found = {panel.title: one for panel, one in data}
    assert set(found["To be paid, by day and role"]) == set(SENDERS)
    assert {row[0] for row in found["By country"][1]} == {"+94", "+91"}
    assert {"ideamart", "msg91"} <= set(found["Codes typed in, by provider"])
    providers = {row[0] for row in found["What vendors said last"][1]}
    assert {"msg91", "hyperverge"} <= providers


def check_series(panel, columns, rows):
    """As Grafana turns them into series: a time, then at most one name, then numbers; in the order of time, and none twice."""
    names = [column for column in columns if column == "metric"]
    values = [column for column in columns if column not in ("time", "metric")]
    assert columns[0] == "time" and len(names) <= 1 and values, panel.title
    kinds = {"time": datetime.datetime, "metric": str} | {value: (float, type(None)) for value in values}
    assert all(isinstance(value, kinds[column]) for row in rows for column, value in zip(columns, row)), panel.title
    keys = [row[: 1 + len(names)] for row in rows]
    assert keys == sorted(keys) and len(set(keys)) == len(keys), panel.title


def draw(title, data, name):
    PICTURES.mkdir(parents=True, exist_ok=True)
    panels.draw(title, data, PICTURES / name)
    assert (PICTURES / name).stat().st_size > 20_000
