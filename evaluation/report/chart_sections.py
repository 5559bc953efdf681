"""The sections of the report that are charts: precision and recall, calibration, error over time and by kind, training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.metric_config import MotionMetricsConfig
from evaluation.palette import BLACK, BLUE, ORANGE, PURPLE, TYPE_COLORS
from evaluation.report.breakdowns import Breakdown, all_breakdowns
from evaluation.report.calibration import Reliability, hit_reliability, nearest_reliability
from evaluation.report.chart import WIDE, Series, category_axis, legend, line_chart, number_axis
from evaluation.report.markup import Child, Html, details, join, number, table, tag
from evaluation.report.object_table import ObjectTable
from evaluation.report.page import Section
from evaluation.report.precision_recall import area, curve_of, staircase
from evaluation.report.results_section import METRIC_LABELS
from evaluation.report.time_errors import TIMES_S, TimeErrors
from evaluation.report.training_curves import Curve, TrainingCurves
from limtr.scene import PREDICTED_TYPES, ObjectType

MARKERS = {ObjectType.VEHICLE: "circle", ObjectType.PEDESTRIAN: "triangle", ObjectType.CYCLIST: "square"}
_HORIZON_STYLE = ((BLUE, ""), (ORANGE, "7 3"), (PURPLE, "2 3"), (BLACK, "9 3 2 3"))
_PREDICTOR_STYLE = ((BLUE, "", "circle"), (BLUE, "6 3", "diamond"), (ORANGE, "2 3", "square"), (BLACK, "9 3 2 3", "triangle"))


def _present(objects: ObjectTable) -> list[ObjectType]:
    return [kind for kind in PREDICTED_TYPES if (objects.kind == kind).any()]


def _charts(items: Sequence[Html], *, pairs: bool = False) -> Html:
    return tag("div", *items, class_="charts pairs" if pairs else "charts")


def precision_recall_section(objects: ObjectTable, config: MotionMetricsConfig, main: str) -> Section:
    """A chart per class, a line per horizon."""
    charts: list[Html] = []
    rows: list[list[Child]] = []
    unit = number_axis("recall", [0.0, 1.0]), number_axis("precision", [0.0, 1.0])
    lines: list[Series] = []
    for kind in _present(objects):
        part = objects.keep(objects.kind == kind)
        lines, areas = [], []
        for index, horizon in enumerate(config.horizons):
            curve = curve_of(part, index)
            color, dash = _HORIZON_STYLE[index % len(_HORIZON_STYLE)]
            x, y = [corner.tolist() for corner in staircase(curve)] if curve else ([], [])
            lines.append(Series(name=f"{horizon.seconds:g} s", x=x, y=y, color=color, dash=dash))
            areas.append(number(area(curve) if curve else None, 4))
        charts.append(line_chart(kind.name.lower(), *unit, lines))
        rows.append([kind.name.lower(), *areas])
    note = (
        f"Precision of {main} over recall, at every recall the mean over the trajectory buckets of the interpolated curves. "
        "The area under a line is the mAP of the table."
    )
    header = ["class", *(f"mAP at {horizon.seconds:g} s" for horizon in config.horizons)]
    numbers = details("Areas as numbers", table("Areas under the curves", header, rows))
    return Section("precision-recall", "Precision and recall", join([tag("p", note), legend(lines), _charts(charts), numbers]))


def calibration_section(objects: ObjectTable, config: MotionMetricsConfig) -> Section:
    """Two reliability diagrams: the nearest mode, and modes within the miss thresholds."""
    last = len(config.horizons) - 1
    kinds = _present(objects)
    parts = {kind: objects.keep(objects.kind == kind) for kind in kinds}
    diagrams: dict[str, dict[ObjectType, Reliability]] = {
        "the mode is the nearest of its object's modes": {kind: nearest_reliability(part) for kind, part in parts.items()},
        f"the mode is a hit at {config.horizons[last].seconds:g} s": {
            kind: hit_reliability(part, last) for kind, part in parts.items()
        },
    }
    unit = number_axis("probability", [0.0, 1.0]), number_axis("how often it is right", [0.0, 1.0])
    charts: list[Html] = []
    rows: list[list[Child]] = []
    for title, found in diagrams.items():
        lines = [
            Series(
                name=kind.name.lower(), x=item.mean_probability, y=item.frequency, color=TYPE_COLORS[kind], marker=MARKERS[kind]
            )
            for kind, item in found.items()
        ]
        charts.append(line_chart(title, *unit, lines, width=WIDE, diagonal=True))
        for kind, item in found.items():
            bins = zip(item.mean_probability, item.frequency, item.num_modes, strict=True)
            rows += [[title, kind.name.lower(), number(p), number(f), count, ""] for p, f, count in bins]
            rows.append([title, kind.name.lower(), "all", "", sum(item.num_modes), number(item.expected_error)])
    note = (
        "Probabilities are the scores of an object's first six modes as shares of their sum. On the dotted line they mean "
        "what they say; below it they promise too much. Exactly one mode is the nearest, so perfect probabilities lie on the "
        "line of the first diagram; several modes may hit, or none, so the second one need not lie "
        "on the line. Points are bins of 0.1."
    )
    errors = [[title, *(number(item.expected_error) for item in found.values())] for title, found in diagrams.items()]
    summary = table("Expected calibration error", ["right means", *(kind.name.lower() for kind in kinds)], errors)
    header = ["right means", "class", "probability", "frequency", "modes", "expected calibration error"]
    numbers = details("Bins as numbers", table("Calibration", header, rows, num_heads=2))
    return Section(
        "calibration", "Calibration of mode probabilities",
        join([tag("p", note), _class_legend(kinds), _charts(charts, pairs=True), summary, numbers]),
        "Calibration",
    )  # fmt: skip


def _class_legend(kinds: Sequence[ObjectType]) -> Html:
    return legend([Series(name=kind.name.lower(), x=(), y=(), color=TYPE_COLORS[kind], marker=MARKERS[kind]) for kind in kinds])


def time_section(objects: ObjectTable, errors: Mapping[str, TimeErrors], main: str) -> Section:
    """A chart per class: how far the modes are from the truth, step by step; errors of `main` and of the baselines."""
    likeliest = TimeErrors()
    for kind in PREDICTED_TYPES:
        likeliest.add_rows(kind, objects.likeliest_m[objects.kind == kind])
    shown = {f"{main}, nearest mode": errors[main], f"{main}, likeliest mode": likeliest}
    shown |= {name: item for name, item in errors.items() if name != main}
    charts: list[Html] = []
    rows: list[list[Child]] = []
    lines: list[Series] = []
    for kind in _present(objects):
        lines = []
        for index, (name, item) in enumerate(shown.items()):
            color, dash, marker = _PREDICTOR_STYLE[index % len(_PREDICTOR_STYLE)]
            values = item.mean_m(kind)
            lines.append(Series(name=name, x=TIMES_S, y=values, color=color, dash=dash, marker=marker))
            rows.append([kind.name.lower(), name, *(number(value, 2) for value in values)])
        axes = (
            number_axis("time from now [s]", TIMES_S),
            number_axis("error [m]", [value for line in lines for value in line.y]),
        )
        charts.append(line_chart(kind.name.lower(), *axes, lines))
    note = (
        "Mean distance from the truth at each half second, over the objects whose truth is known there. Of a predictor with "
        "several modes the nearest one counts, chosen anew at each time; the likeliest is the mode with the highest score."
    )
    numbers = details("Errors as numbers [m]", table(
        "Error over time [m]", ["class", "predictor", *(f"{time:g} s" for time in TIMES_S)], rows, num_heads=2))  # fmt: skip
    return Section("time", "Error over time", join([tag("p", note), legend(lines), _charts(charts), numbers]))


def breakdown_section(objects: ObjectTable, config: MotionMetricsConfig, main: str) -> Section:
    """Charts and tables of every breakdown at the last horizon."""
    last = len(config.horizons) - 1
    seconds = f"{config.horizons[last].seconds:g} s"
    found = all_breakdowns(objects, last)
    charts = [_breakdown_chart(item, seconds) for item in found if item.is_measured]
    tables = [_breakdown_table(item, seconds) for item in found if item.is_measured]
    note = (
        f"{main.capitalize()} at {seconds}, by what the objects are like. Whiskers are 95 % intervals of the mean, taking "
        "objects as independent (those of one scene are not quite). Points without a whisker stand for a single object, "
        "or for objects that all have the same value."
    )
    unknown = [
        f"{item.title}: not known of {item.num_unknown} of {len(objects)} objects"
        for item in found[:: len(found) // 4]
        if item.num_unknown
    ]
    numbers = details("Means as numbers", *tables)
    lost = tag("ul", *(tag("li", line) for line in unknown)) if unknown else None
    return Section(
        "breakdowns", "Error by distance, speed, trajectory and LiDAR points",
        join([tag("p", note), lost, _class_legend(_present(objects)), _charts(charts, pairs=True), numbers]),
        "Breakdowns",
    )  # fmt: skip


def _breakdown_chart(item: Breakdown, seconds: str) -> Html:
    kinds = list(item.means)
    shift = {
        kind: 0.14 * (index - (len(kinds) - 1) / 2) for index, kind in enumerate(kinds)
    }  # so that whiskers can be told apart
    lines = [
        Series(
            name=kind.name.lower(), color=TYPE_COLORS[kind], marker=MARKERS[kind],
            x=[index + shift[kind] for index in range(len(means))], y=[mean.value for mean in means],
            half_width=[mean.half_width for mean in means], connected=item.ordered,
        )
        for kind, means in item.means.items()
    ]  # fmt: skip
    tops = [mean.value + (mean.half_width or 0.0) for means in item.means.values() for mean in means if mean.value is not None]
    y = number_axis(METRIC_LABELS[item.metric], [1.0] if item.metric == "miss_rate" else tops)
    name = METRIC_LABELS[item.metric].partition(" [")[0]
    short = item.title.partition(" [")[0]
    return line_chart(f"{name} at {seconds} by {short}", category_axis(item.title, item.labels), y, lines, width=WIDE)


def _breakdown_table(item: Breakdown, seconds: str) -> Html:
    rows = []
    for index, label in enumerate(item.labels):
        cells = []
        for means in item.means.values():
            mean = means[index]
            spread = "" if mean.half_width is None else f" ± {mean.half_width:.3f}"
            cells += [f"{number(mean.value)}{spread}", str(mean.num_objects)]
        rows.append([label, *cells])
    header = [item.title]
    for kind in item.means:
        header += [kind.name.lower(), "objects"]
    return table(f"{METRIC_LABELS[item.metric]} at {seconds} by {item.title}", header, rows)


_TRAINING_CHARTS = (
    ("train", ("loss",), "training loss"),
    ("train", ("learning_rate",), "learning rate"),
    ("validation", ("minADE", "minFDE"), "validation: minADE and minFDE [m]"),
    ("validation", ("miss_rate",), "validation: miss rate"),
    ("validation", ("mAP", "soft_mAP"), "validation: mAP and soft mAP"),
)


def training_section(curves: TrainingCurves | None, why_not: str) -> Section:
    """Charts of what the run logged, or why there are none."""
    if curves is None:
        return Section("training", "Training", tag("p", why_not))
    charts = []
    for kind, names, title in _TRAINING_CHARTS:
        logged: Mapping[str, Curve] = curves.train if kind == "train" else curves.validation
        lines = [
            Series(name=METRIC_LABELS.get(name, name), x=logged[name].steps, y=logged[name].values, color=color, dash=dash,
                   marker="circle" if len(logged[name].steps) < 30 else "")
            for name, (color, dash) in zip(names, _HORIZON_STYLE, strict=False)
            if name in logged
        ]  # fmt: skip
        if lines:
            steps = [float(step) for line in lines for step in line.x]
            axes = number_axis("step", steps), number_axis("", [value for line in lines for value in line.y])
            chart = line_chart(title, *axes, lines)
            charts.append(tag("div", chart, legend(lines) if len(lines) > 1 else None))
    if not charts:
        return Section("training", "Training", tag("p", f"{curves.path} holds no training or validation values."))
    broken = f" {curves.num_unreadable} of its lines could not be read." if curves.num_unreadable else ""
    return Section("training", "Training", join([tag("p", f"As logged in {curves.path}.{broken}"), _charts(charts)]))
