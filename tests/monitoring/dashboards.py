#!/usr/bin/env python3
"""Writes the two dashboards for Grafana, monitoring/grafana-oncall.json and monitoring/grafana-product.json, with the types
of Grafana's own SDK, for Grafana 11.6 and later.

    dashboards.py           compares them with what is there, and ends with 1 where they differ
    dashboards.py write     writes them
"""

import json
import sys

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog import builder, variants
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as commons
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from chain import MONITORING

METRICS = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
RECORD = model.DataSourceRef(type_val="grafana-postgresql-datasource", uid="${datasource}")


class SqlQuery(variants.Dataquery, builder.Builder):
    """What the data source of PostgreSQL takes: the SDK has no type for it."""

    def __init__(self, sql, shape, ref_id="A"):
        self.sql, self.shape, self.ref_id = " ".join(sql.split()), shape, ref_id

    def build(self):
        return self

    def to_json(self):
        return {
            "refId": self.ref_id,
            "datasource": RECORD,
            "editorMode": "code",
            "format": self.shape,
            "rawQuery": True,
            "rawSql": self.sql,
        }


def metric(expression, legend, ref_id="A"):
    # The databases that are chosen above.
    expression = " ".join(expression.split()).replace("{", '{datname=~"$datname",').replace(",}", "}")
    return prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(ref_id).datasource(METRICS).range()


def place(panel, title, description, datasource, width, height, *targets):
    panel = panel.title(title).description(description).datasource(datasource).span(width).height(height)
    for target in targets:
        panel = panel.with_target(target)
    return panel


def legend_below():
    return (
        common.VizLegendOptions()
        .display_mode(commons.LegendDisplayMode.LIST)
        .placement(commons.LegendPlacement.BOTTOM)
        .show_legend(True)
    )


def lines(unit, stacked=False):
    panel = timeseries.Panel().unit(unit).min(0).legend(legend_below())
    if stacked:
        panel = panel.fill_opacity(40).stacking(common.StackingConfig().mode(commons.StackingMode.NORMAL))
    return panel


def bars():
    return lines("short", stacked=True).draw_style(commons.GraphDrawStyle.BARS)


def states(*named):
    """A row for each series, coloured by its value: (text, colour) of 0, 1, ..."""
    options = {
        str(value): model.ValueMappingResult(text=text, color=color, index=value)
        for value, (text, color) in enumerate(named)
    }
    return (
        statetimeline.Panel()
        .mappings([model.ValueMap(options=options)])
        .show_value(commons.VisibilityMode.NEVER)
        .row_height(0.8)
    )


def number(unit):
    return stat.Panel().unit(unit).color_mode(commons.BigValueColorMode.NONE).graph_mode(commons.BigValueGraphMode.NONE)


def percent(name):
    return dict(
        name=name,
        properties=[
            model.DynamicConfigValue(id_val="unit", value="percentunit"),
            model.DynamicConfigValue(id_val="decimals", value=0),
        ],
    )


def a_dashboard(uid, title, description, span, datasource):
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["otp_gateway", "postgresql"])
        .time(f"now-{span}", "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type(datasource.type_val))
    )


def oncall():
    """What is wrong right now."""
    sends = 'otp_gateway_attempts_total{operation=~"send|resend"}'
    every = "[$__rate_interval]"
    panels = [
        place(
            states(("ok", "green"), ("warning", "yellow"), ("critical", "red"), ("unknown", "purple")),
            "Checks",
            "otp_gateway.health(): a card for each check is in docs/operations.md",
            METRICS,
            24,
            10,
            metric("max by (check) (otp_gateway_health_status{})", "{{check}}"),
        ),
        place(
            lines("ops", stacked=True),
            "Sends, by outcome",
            "Sends and resends in a second",
            METRICS,
            12,
            8,
            metric(f"sum by (outcome) (rate({sends}{every}))", "{{outcome}}"),
        ),
        place(
            lines("s"),
            "How long a send takes",
            "Half, 95 % and 99 % of sends take no longer",
            METRICS,
            12,
            8,
            *(
                metric(
                    f'histogram_quantile({share}, sum by (le, provider) (rate(otp_gateway_attempt_duration_seconds_bucket{{operation="send"}}{every})))',
                    f"{{{{provider}}}} p{share[2:]:0<2}",
                    ref_id,
                )
                for share, ref_id in (("0.5", "A"), ("0.95", "B"), ("0.99", "C"))
            ),
        ),
        place(
            lines("short"),
            "Queue",
            "Queued sends: those that may go now, and those that wait for another try or for their provider",
            METRICS,
            12,
            8,
            metric("sum by (provider) (otp_gateway_provider_queue_length{})", "{{provider}} may go"),
            metric("sum by (provider) (otp_gateway_provider_queue_parked{})", "{{provider}} parked", "B"),
        ),
        place(
            lines("s"),
            "The oldest in the queue",
            "How long the oldest waits that may go now",
            METRICS,
            12,
            8,
            metric("max by (provider) (otp_gateway_provider_queue_oldest_age_seconds{})", "{{provider}}"),
        ),
        place(
            states(("closed", "green"), ("open", "red")),
            "Breakers",
            "Nothing is sent through a provider whose breaker is open",
            METRICS,
            12,
            8,
            metric("max by (provider) (otp_gateway_provider_breaker_open{})", "{{provider}}"),
        ),
        place(
            lines("percentunit").max(1),
            "Places in use",
            "Calls in flight, of the provider's max_in_flight",
            METRICS,
            12,
            8,
            metric(
                "max by (provider) (otp_gateway_provider_in_flight{} / (otp_gateway_provider_in_flight_limit{} > 0))",
                "{{provider}}",
            ),
        ),
        place(
            lines("ops", stacked=True),
            "Blocked, by rule",
            "What no vendor was asked for, and what `enforce 'observe'` would have blocked",
            METRICS,
            12,
            8,
            metric(f'sum by (reason) (rate(otp_gateway_attempts_total{{outcome="blocked"}}{every}))', "{{reason}}"),
            metric(
                f'sum by (reason) (rate(otp_gateway_attempts_total{{outcome!="blocked",reason!=""}}{every}))',
                "{{reason}} (observed)",
                "B",
            ),
        ),
        place(
            lines("ops"),
            "May have gone, or not",
            "Attempts whose outcome is unknown",
            METRICS,
            12,
            8,
            metric(f'sum by (provider) (rate(otp_gateway_attempts_total{{outcome="unknown"}}{every}))', "{{provider}}"),
        ),
    ]
    board = (
        a_dashboard(
            "otp-gateway-oncall",
            "OTP gateway: on call",
            "What is wrong right now, from Prometheus. Made by tests/monitoring/dashboards.py.",
            "3h",
            METRICS,
        )
        .refresh("30s")
        .with_variable(
            dashboard.QueryVariable("datname")
            .label("Database")
            .datasource(METRICS)
            .query("label_values(otp_gateway_up, datname)")
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        )
    )
    for id_, panel in enumerate(panels, 1):
        board = board.with_panel(panel.id(id_))
    return board.build()


def product():
    """What the codes do for the product, and what they cost."""
    hours = "FROM otp_gateway.stat_hourly WHERE $__timeFilter(hour)"
    total = "COALESCE(sum({}), 0)::float8"
    panels = [
        place(
            number("short"),
            "Messages",
            "Sends and resends that a vendor took",
            RECORD,
            6,
            4,
            SqlQuery(f"SELECT {total.format('sent')} AS messages {hours}", "table"),
        ),
        place(
            number("percentunit"),
            "Typed in",
            "Of the verifications that were sent a code, those that were approved",
            RECORD,
            6,
            4,
            SqlQuery(f"SELECT sum(converted)::float8 / NULLIF(sum(verifications), 0) AS conversion {hours}", "table"),
        ),
        place(
            number("short"),
            "To be paid",
            "Messages that went out or may have: times your price",
            RECORD,
            6,
            4,
            SqlQuery(f"SELECT {total.format('billable')} AS billable {hours}", "table"),
        ),
        place(
            number("short"),
            "Blocked",
            "Sends that a rule of yours held back",
            RECORD,
            6,
            4,
            SqlQuery(f"SELECT {total.format('blocked')} AS blocked {hours}", "table"),
        ),
        place(
            lines("percentunit").max(1),
            "Codes typed in, by provider",
            "Conversion, hour by hour",
            RECORD,
            24,
            8,
            SqlQuery(
                f"""SELECT hour AS "time", COALESCE(provider, '(dropped)') AS metric, sum(converted)::float8 / NULLIF(sum(verifications), 0) AS conversion
                {hours} GROUP BY 1, 2 ORDER BY 1, 2""",
                "time_series",
            ),
        ),
        place(
            table.Panel().override_by_name(**percent("conversion")),
            "By country",
            "By calling code",
            RECORD,
            12,
            6,
            SqlQuery(
                f"""SELECT COALESCE(country, '?') AS country, sum(verifications)::float8 AS sent, sum(converted)::float8 AS converted,
                sum(converted)::float8 / NULLIF(sum(verifications), 0) AS conversion
                {hours} GROUP BY 1 ORDER BY 2 DESC, 1""",
                "table",
            ),
        ),
        place(
            table.Panel(),
            "What vendors said last",
            "The latest failure of each provider, in the vendor's own words",
            RECORD,
            12,
            6,
            SqlQuery(
                """SELECT provider, last_failure_at, last_failure_outcome AS outcome, last_vendor_code AS code,
                last_vendor_message AS message, consecutive_failures::float8 AS in_a_row
                FROM otp_gateway.stat_provider WHERE last_failure_at IS NOT NULL ORDER BY last_failure_at DESC""",
                "table",
            ),
        ),
        place(
            bars(),
            "To be paid, by day and role",
            "Messages that went out or may have, by who sent them",
            RECORD,
            12,
            8,
            SqlQuery(
                f"""SELECT date_trunc('day', hour) AS "time", COALESCE(created_by, '(dropped)') AS metric, sum(billable)::float8 AS billable
                {hours} GROUP BY 1, 2 ORDER BY 1, 2""",
                "time_series",
            ),
        ),
        place(
            bars(),
            "Blocked, by day",
            "What a rule held back, and what it would have with `enforce 'on'`",
            RECORD,
            12,
            8,
            SqlQuery(
                f"""SELECT date_trunc('day', hour) AS "time", sum(blocked)::float8 AS blocked, sum(would_block)::float8 AS would_block
                {hours} GROUP BY 1 ORDER BY 1""",
                "time_series",
            ),
        ),
    ]
    board = a_dashboard(
        "otp-gateway-product",
        "OTP gateway: product",
        "Conversion, volume and spend, from otp_gateway.stat_hourly. Made by tests/monitoring/dashboards.py.",
        "7d",
        RECORD,
    )
    for id_, panel in enumerate(panels, 1):
        board = board.with_panel(panel.id(id_))
    return board.build()


def texts():
    """The two files, by path."""
    boards = {"grafana-oncall.json": oncall(), "grafana-product.json": product()}
    return {
        MONITORING / name: json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for name, board in boards.items()
    }


if __name__ == "__main__":
    for path, text in texts().items():
        if sys.argv[1:] == ["write"]:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            sys.exit(f"{path} is not what dashboards.py makes: dashboards.py write")
