#!/usr/bin/env python3
"""Writes monitoring/otp_gateway.collector.yml, for sql_exporter, out of monitoring/queries.yaml: the same metrics by the
same queries. sql_exporter knows no histogram: its three metrics are counters there, with the label `le`.

    collector.py            compares it with what is there, and ends with 1 where it differs
    collector.py write      writes it
"""

import sys

import yaml

from chain import MONITORING

PATH = MONITORING / "otp_gateway.collector.yml"
HEAD = """\
# For sql_exporter (https://github.com/burningalchemist/sql_exporter), by a role with pg_monitor: collector_files of its
# configuration. The same metrics as queries.yaml, which this is made of by tests/monitoring/collector.py.
"""
BUCKETS = """
SELECT datname, provider, operation, CASE WHEN bound = 'Infinity' THEN '+Inf' ELSE bound::text END AS le, number AS bucket
FROM ({query}) AS l, unnest(duration_seconds || 'Infinity'::float8, duration_seconds_bucket || duration_seconds_count) AS b (bound, number)
"""


def exported():
    """The blocks of queries.yaml: name, query, and (column, usage, description)."""
    for name, block in yaml.safe_load((MONITORING / "queries.yaml").read_text()).items():
        columns = [
            (column, how["usage"], how["description"]) for one in block["metrics"] for column, how in one.items()
        ]
        yield name, " ".join(block["query"].split()), columns


def collector():
    queries, metrics = [], []

    def metric(name, kind, help_, labels, value, query):
        metrics.append(
            {
                "metric_name": name,
                "type": kind,
                "help": help_,
                "key_labels": labels,
                "values": [value],
                "query_ref": query,
            }
        )

    for name, query, columns in exported():
        queries.append({"query_name": name, "query": query})
        labels = [column for column, usage, _ in columns if usage == "LABEL"]
        for column, usage, help_ in columns:
            if usage in ("COUNTER", "GAUGE"):
                metric(f"{name}_{column}", usage.lower(), help_, labels, column, name)
            elif usage == "HISTOGRAM":
                queries.append({"query_name": f"{name}_bucket", "query": " ".join(BUCKETS.format(query=query).split())})
                metric(f"{name}_{column}_bucket", "counter", help_, [*labels, "le"], "bucket", f"{name}_bucket")
                for part in ("sum", "count"):
                    metric(f"{name}_{column}_{part}", "counter", help_, labels, f"{column}_{part}", name)
    return {"collector_name": "otp_gateway", "metrics": metrics, "queries": queries}


class Plain(yaml.SafeDumper):
    """No anchors."""

    def ignore_aliases(self, data):
        return True


def text():
    return HEAD + yaml.dump(collector(), Dumper=Plain, sort_keys=False, width=90)


if __name__ == "__main__":
    if sys.argv[1:] == ["write"]:
        PATH.write_text(text())
    elif not PATH.exists() or PATH.read_text() != text():
        sys.exit(f"{PATH} is not what collector.py makes of queries.yaml: collector.py write")
