"""The panels of a dashboard, as it is committed: what their queries give, and a picture of it. Grafana itself is not here:
its macros and variables are expanded below, and matplotlib draws, roughly as Grafana would."""

import datetime
import json
import math
import re

import matplotlib

matplotlib.use("Agg")

import matplotlib.dates
import matplotlib.pyplot as pyplot

from chain import MONITORING

# A series' colour, of each palette in turn; of an outcome the one that one expects.
COLOURS = ["#73bf69", "#5794f2", "#f2cc0c", "#ff9830", "#b877d9", "#f2495c", "#8ab8ff", "#c0d8ff", "#a352cc"]
NAMED = {"green": "#73bf69", "yellow": "#f2cc0c", "red": "#f2495c", "purple": "#b877d9"}


class Panel:
    def __init__(self, json_):
        fields = json_.get("fieldConfig", {})
        defaults, self.overrides = fields.get("defaults", {}), fields.get("overrides", [])
        self.title, self.kind, self.targets = json_["title"], json_["type"], json_["targets"]
        self.bars = defaults.get("custom", {}).get("drawStyle") == "bars"
        self.unit, self.most = defaults.get("unit", "short"), defaults.get("max")
        self.mappings = [mapping["options"] for mapping in defaults.get("mappings", [])]
        self.stacked = "stacking" in json.dumps(json_)
        place = json_["gridPos"]
        self.x, self.y, self.width, self.height = (place[side] for side in "xywh")


def panels(name):
    return [Panel(one) for one in json.loads((MONITORING / name).read_text())["panels"]]


def expression(target, window):
    return target["expr"].replace("$__rate_interval", window).replace("$datname", ".*")


def statement(target, since, until):
    """As Grafana's data source for PostgreSQL expands it."""
    sql = re.sub(
        r"\$__timeFilter\((\w+)\)", rf"\1 BETWEEN '{since.isoformat()}' AND '{until.isoformat()}'", target["rawSql"]
    )
    assert "$" not in sql, sql
    return sql


def of_prometheus(panel, prometheus, since, until, step=1, window="15s", targets=None):
    """name -> [(time, value)], of all targets, or of these."""
    found = {}
    for target in targets or panel.targets:
        query = dict(query=expression(target, window), start=since.timestamp(), end=until.timestamp(), step=step)
        for series in prometheus.ask("query_range", **query)["result"]:
            name = re.sub(r"\{\{(\w+)\}\}", lambda label: series["metric"].get(label[1], ""), target["legendFormat"])
            points = [
                (datetime.datetime.fromtimestamp(at, datetime.UTC), float(value)) for at, value in series["values"]
            ]
            found[name] = [(at, value) for at, value in points if not math.isnan(value)]
    return {name: points for name, points in found.items() if points}


def of_postgres(panel, session, since, until):
    """The columns and the rows of its one query."""
    [target] = panel.targets
    with session.cursor() as cursor:
        cursor.execute(statement(target, since, until))
        return [column.name for column in cursor.description], cursor.fetchall()


def as_series(columns, rows):
    """Of the format time_series: `time`, `metric` if the series have names, and numbers."""
    at = columns.index("time")
    values = [column for column in columns if column not in ("time", "metric")]
    found = {}
    for row in rows:
        for column in values:
            name = row[columns.index("metric")] if "metric" in columns else column
            value = row[columns.index(column)]
            found.setdefault(name, []).append((row[at], math.nan if value is None else float(value)))
    return found


def shown(value, unit):
    if value is None:
        return "-"
    if isinstance(value, datetime.datetime):
        return value.strftime("%m-%d %H:%M:%S")
    if isinstance(value, str):
        return value if len(value) <= 34 else value[:33] + "…"
    return f"{value:.0%}" if unit == "percentunit" else f"{value:,.0f}"


def below(axes, panel, *legend):
    axes.legend(
        *legend,
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.09),
        ncols=max(1, panel.width // 3),
        fontsize=6.5,
        frameon=False,
        columnspacing=1,
        handlelength=1.2,
        labelspacing=0.2,
    )


def by_time(axes):
    locator = axes.xaxis.get_major_locator()
    axes.xaxis.set_major_formatter(matplotlib.dates.ConciseDateFormatter(locator, show_offset=False))


def draw_lines(axes, panel, series):
    names = sorted(series)
    times = sorted({at for points in series.values() for at, _ in points})
    values = {name: [dict(points).get(at, 0.0) for at in times] for name, points in series.items()}
    if panel.bars:
        floor = [0.0] * len(times)
        for colour, name in zip(COLOURS, names):
            axes.bar(range(len(times)), values[name], bottom=floor, label=name, color=colour, width=0.7)
            floor = [low + value for low, value in zip(floor, values[name])]
        axes.set_xticks(range(len(times)), [at.strftime("%m-%d") for at in times])
    elif panel.stacked and names:
        axes.stackplot(times, [values[name] for name in names], labels=names, colors=COLOURS, alpha=0.8)
    else:
        for colour, name in zip(COLOURS * 3, names):
            axes.plot(*zip(*series[name]), label=name, color=colour, linewidth=1.3)
    axes.set_ylim(bottom=0, top=panel.most)
    if panel.unit == "percentunit":
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    elif panel.unit != "short":
        axes.set_ylabel({"ops": "a second", "s": "seconds"}[panel.unit], fontsize=7)
    if names and not panel.bars:
        by_time(axes)
    axes.grid(alpha=0.25)
    if names:
        below(axes, panel)


def draw_states(axes, panel, series):
    [options] = panel.mappings
    names = sorted(series, reverse=True)
    for row, name in enumerate(names):
        points = series[name]
        for (at, value), (next_at, _) in zip(points, points[1:]):
            axes.barh(
                row,
                next_at - at,
                left=at,
                color=NAMED[options[str(int(value))]["color"]],
                height=0.8,
                linewidth=0,
                antialiased=False,
            )
    axes.set_yticks(range(len(names)), names)
    axes.xaxis_date()
    by_time(axes)
    named = [pyplot.Rectangle((0, 0), 1, 1, color=NAMED[option["color"]]) for option in options.values()]
    below(axes, panel, named, [option["text"] for option in options.values()])


def draw_table(axes, panel, columns, rows):
    axes.axis("off")
    percents = {override["matcher"]["options"] for override in panel.overrides}
    units = ["percentunit" if column in percents else "short" for column in columns]
    cells = [[shown(value, unit) for value, unit in zip(row, units)] for row in rows[:8]]
    if cells:
        longest = [max(map(len, column)) + 2 for column in zip(columns, *cells)]
        widths = [length / sum(longest) for length in longest]
        drawn = axes.table(
            cells,
            colLabels=columns,
            colWidths=widths,
            loc="upper left",
            cellLoc="left",
            colLoc="left",
            edges="horizontal",
        )
        drawn.auto_set_font_size(False)
        drawn.set_fontsize(7)


def draw(title, data, path):
    """`data`: a panel, and its series, or its columns and rows. The grid has 24 columns, and rows of 30 pixels."""
    matplotlib.rcParams.update({"font.size": 7.5})
    rows = max(panel.y + panel.height for panel, _ in data) + 1
    figure = pyplot.figure(figsize=(12, rows * 0.3), dpi=100)
    figure.text(0.01, 1 - 0.75 / rows, title, fontsize=11)
    for panel, found in data:
        # With room for its title above, and for what belongs to the axes on the left and below.
        axes = figure.add_axes(
            [
                (panel.x + 1.6) / 24,
                1 - (panel.y + panel.height - 0.7) / rows,
                (panel.width - 1.9) / 24,
                (panel.height - 2.9) / rows,
            ]
        )
        if panel.kind in ("stat", "table"):
            axes.set_position(
                [
                    (panel.x + 0.4) / 24,
                    1 - (panel.y + panel.height) / rows,
                    (panel.width - 0.7) / 24,
                    (panel.height - 2.2) / rows,
                ]
            )
        figure.text((panel.x + 0.4) / 24, 1 - (panel.y + 1.8) / rows, panel.title, fontsize=8.5, fontweight="bold")
        if panel.kind == "stat":
            axes.axis("off")
            axes.text(0, 0.45, shown(found[1][0][0], panel.unit), va="center", fontsize=22)
        elif panel.kind == "table":
            draw_table(axes, panel, *found)
        elif panel.kind == "state-timeline":
            draw_states(axes, panel, found)
        else:
            draw_lines(axes, panel, found)
    figure.savefig(path)
    pyplot.close(figure)
