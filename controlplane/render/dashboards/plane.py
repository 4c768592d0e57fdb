"""The control plane itself: who is in charge, whether it keeps up, what it costs; pure. Called by `collection`."""

from controlplane.policy.model import Policy
from controlplane.render.dashboards import palette, readings
from controlplane.render.dashboards.board import Board, Section, Shelf, Variable
from controlplane.render.dashboards.overview import DEGRADED
from controlplane.render.dashboards.palette import ALARM
from controlplane.render.dashboards.panels import (
    Panel,
    column,
    dashed,
    in_unit,
    lines,
    matching,
    now,
    stat,
    table,
    target,
    timeline,
)
from controlplane.render.dashboards.readings import OF, OURS, at_least

UID = "controlplane-itself"

INSTANCES = Variable("instance", "Control plane", f"label_values(controlplane_leader{{{OF}}}, instance)")
_EACH = "{{instance}}"
LATE_S = 0.1
"""The event loop is late by so much only when something keeps it: then probes are late, too."""


def board(policy: Policy) -> Board:
    """Return what the control planes of a policy's service say of themselves."""
    return Board(
        UID,
        "Control plane itself",
        "Who is in charge, whether it keeps up with the fleet, what it costs. Other dashboards are as true as this one "
        "is green.",
        (
            Section(
                "In charge",
                (
                    Shelf(4, ((6, _leaders()), (6, _ready()), (6, _lag_now()), (6, _skipped_now()))),
                    Shelf(5, ((12, _leadership()), (12, _readiness()))),
                    Shelf(4, ((24, _versions()),)),
                ),
            ),
            Section("Keeping up", (Shelf(7, ((8, _lag()), (8, _evaluation()), (8, _evaluations()))),)),
            Section("Probes", (Shelf(7, ((8, _looks()), (8, _look_seconds()), (8, _skipped()))),)),
            Section("Store", (Shelf(7, ((12, _store_seconds()), (12, _store_rate()))),)),
            Section("API and console", (Shelf(7, ((8, _requests()), (8, _request_seconds()), (8, _held()))),)),
            Section("Webhooks", (Shelf(7, ((8, _webhooks()), (8, _commits()), (8, _watchdog()))),)),
            Section("Process", (Shelf(7, ((8, _cpu()), (8, _memory()), (8, _files()))),)),
        ),
        (readings.service(policy), INSTANCES, readings.CONSOLE),
        (DEGRADED,),
    )


def _leaders() -> Panel:
    return stat( "In charge", [now(f"sum(controlplane_leader{{{OF}}})", "in charge")],
        "Control planes that are in charge: one, never two. 0 for longer than a lease: nobody moves a lever.",
        steps=(("red", None), ("green", 1), ("red", 2)), colorMode="background",
    )  # fmt: skip


def _ready() -> Panel:
    return stat( "Ready", [now(f"sum(controlplane_ready{{{OURS}}})", "ready"),
                           now(f"count(controlplane_ready{{{OURS}}})", "of", "B")],
        "Control planes that have seen the whole fleet and miss no part.", steps=(("red", None), ("green", 1)),
        options={"textMode": "value_and_name"}, colorMode="value",
    )  # fmt: skip


def _lag_now() -> Panel:
    return stat( "Loop lag",
        [now(f"max(max_over_time(controlplane_loop_lag_seconds{{{OURS}}}[1m]))", "worst in 1 min")],
        "How late the event loop was at most in the last minute. Late loops make late probes and late decisions.",
        unit="s", steps=(("green", None), ("yellow", LATE_S), ("red", 10 * LATE_S)), colorMode="background",
    )  # fmt: skip


def _skipped_now() -> Panel:
    skipped = f"sum(increase(controlplane_probes_skipped_total{{{OURS}}}[$__range]))"
    return stat( "Looks left out", [now(f"{skipped} or 0 * max(controlplane_ready{{{OURS}}})", "left out")],
        "Looks that were left out in the time that is shown, because the one before had not ended.", steps=ALARM,
        colorMode="value", defaults={"decimals": 0},
    )  # fmt: skip


def _leadership() -> Panel:
    return timeline( "Leadership", [target(f"max by (instance) (controlplane_leader{{{OF}}})", _EACH)],
        "Which control plane was in charge when; with one database for several, another takes over within a lease.",
        [(0, "watches", "blue"), (1, "in charge", "green")],
    )  # fmt: skip


def _readiness() -> Panel:
    return timeline( "Readiness", [target(f"min by (instance) ({at_least(f'controlplane_ready{{{OURS}}}')})", _EACH)],
        "Whether each control plane had seen the whole fleet.", [(0, "not ready", "orange"), (1, "ready", "green")],
    )  # fmt: skip


def _versions() -> Panel:
    info = f"max by (instance, version, console) (controlplane_info{{{OF}}})"
    return table( "Control planes",
        [now(info, "", "A", form="table"),
         now(f"max by (instance) (controlplane_leader_term{{{OF}}})", "", "B", form="table"),
         now(f"max by (instance) (time() - process_start_time_seconds{{{OURS}}})", "", "C", form="table")],
        "What runs where; term: the fencing token of the term in which it is in charge, 0 for one that watches.",
        {"instance": "Instance", "version": "Version", "console": "Console", "Value #B": "Term", "Value #C": "Runs for",
         "Value #A": ""},
        overrides=[column("Runs for", in_unit("s"))],
    )  # fmt: skip


def _lag() -> Panel:
    return lines( "Event loop lag", [target(f"max by (instance) (controlplane_loop_lag_seconds{{{OURS}}})", _EACH)],
        "How late the last tick of the event loop was, four times a second.", unit="s", defaults={"min": 0},
        steps=(("green", None), ("yellow", LATE_S), ("red", 10 * LATE_S)), thresholdsStyleMode="dashed",
        custom={"axisSoftMax": LATE_S * 1.25},
    )  # fmt: skip


def _quantiles(histogram: str, by: str, legend: str) -> list[dict[str, object]]:
    """Return the median and the 99th percentile of a histogram of ours; merged first, within a bucket's error."""
    buckets = f"sum by ({by}, le) (rate({histogram}_bucket{{{OURS}}}[$__rate_interval]))"
    return [
        target(f"histogram_quantile({q}, {buckets})", f"{legend} {name}", ref)
        for q, name, ref in (("0.5", "median", "A"), ("0.99", "P99", "B"))
    ]


def _evaluation() -> Panel:
    return lines( "Time of an evaluation", _quantiles("controlplane_evaluation_seconds", "instance", _EACH),
        "One pass over windows, verdicts and rows; within a histogram bucket's error.", unit="s", defaults={"min": 0},
        overrides=[dashed("/ median$/")],
    )  # fmt: skip


def _evaluations() -> Panel:
    made = f"sum by (instance) (rate(controlplane_evaluation_seconds_count{{{OURS}}}[$__rate_interval]))"
    return lines( "Evaluations", [target(made, _EACH)],
        "Passes per second: two, every half second. Fewer: the control plane does not keep up.", unit="ops",
        defaults={"min": 0},
    )  # fmt: skip


def _looks() -> Panel:
    made = f"sum by (probe) (rate(controlplane_probes_total{{{OURS}}}[$__rate_interval]))"
    return lines( "Looks", [target(made, "{{probe}}")], "Looks at endpoints per second, by kind of probe.", unit="ops",
        defaults={"min": 0},
    )  # fmt: skip


def _look_seconds() -> Panel:
    return lines( "Time of a look", _quantiles("controlplane_probe_seconds", "probe", "{{probe}}"),
        "How long looks take, by kind of probe; within a histogram bucket's error. A look ends at its timeout.",
        unit="s", defaults={"min": 0}, overrides=[dashed("/ median$/")],
    )  # fmt: skip


def _skipped() -> Panel:
    left_out = f"sum by (probe) (rate(controlplane_probes_skipped_total{{{OURS}}}[$__rate_interval]))"
    none = f"0 * sum by (probe) (rate(controlplane_probes_total{{{OURS}}}[$__rate_interval]))"
    return lines( "Looks left out", [target(f"{left_out} or {none}", "{{probe}}")],
        "Looks per second that were left out because the one before had not ended.", unit="ops", defaults={"min": 0},
    )  # fmt: skip


def _store_seconds() -> Panel:
    return lines( "Time of a transaction", _quantiles("controlplane_store_seconds", "instance", _EACH),
        "Transactions of the database, with their work; within a histogram bucket's error. A lever waits for one.",
        unit="s", defaults={"min": 0}, overrides=[dashed("/ median$/")],
    )  # fmt: skip


def _store_rate() -> Panel:
    made = f"sum by (result) (rate(controlplane_store_seconds_count{{{OURS}}}[$__rate_interval]))"
    return lines( "Transactions", [target(made, "{{result}}")],
        "Transactions per second, by how they ended. Failed: the database refused, is locked or gone; nothing is "
        "touched that could not be stored before.", unit="ops", defaults={"min": 0},
        overrides=[matching("/^failed$/", "red"), matching("/^ok$/", palette.POOLS["primary"])],
    )  # fmt: skip


def _requests() -> Panel:
    made = f"sum by (status) (rate(controlplane_http_requests_total{{{OURS}}}[$__rate_interval]))"
    return lines( "Requests", [target(made, "{{status}}")],
        "Requests per second, by the status they were answered with. 401 and 403: somebody without the right; 5xx: us.",
        unit="ops", defaults={"min": 0}, overrides=[matching("/^5/", "red"), matching("/^4/", "yellow")],
    )  # fmt: skip


def _request_seconds() -> Panel:
    return lines( "Time of a request", _quantiles("controlplane_http_request_seconds", "instance", _EACH),
        "API and console; within a histogram bucket's error. The time by route is in the metric.", unit="s",
        defaults={"min": 0}, overrides=[dashed("/ median$/")],
    )  # fmt: skip


def _held() -> Panel:
    under_way = f"max by (instance) (controlplane_http_requests_in_flight{{{OURS}}})"
    listening = f"max by (instance) (controlplane_event_listeners{{{OURS}}})"
    return lines(
        "Under way", [target(under_way, f"{_EACH} requests", "A"), target(listening, f"{_EACH} listen", "B")],
        "Requests that are being answered, and open pages and programs that listen for changes.", unit="short",
        defaults={"min": 0},
    )  # fmt: skip


def _webhooks() -> Panel:
    made = "sum(rate(controlplane_alerts_{}_total{{" + OURS + "}}[$__rate_interval]))"
    rates = [target(made.format("received"), "all"), target(made.format("duplicate"), "told twice", "B")]
    return lines( "Alerts taken in", rates,
        "Alerts per second that webhooks brought: written down before they were acknowledged, and those of them that "
        "said nothing new.", unit="ops", defaults={"min": 0},
    )  # fmt: skip


def _commits() -> Panel:
    return lines( "Until alerts are on disk", _quantiles("controlplane_intake_commit_seconds", "instance", _EACH),
        "Time until a group of alerts was on disk: Alertmanager waits for it. Within a histogram bucket's error.",
        unit="s", defaults={"min": 0}, overrides=[dashed("/ median$/")],
    )  # fmt: skip


def _watchdog() -> Panel:
    heard = f"time() - max by (instance) (controlplane_watchdog_last_heard_timestamp_seconds{{{OURS}}})"
    return lines( "Since the watchdog was heard", [target(heard, _EACH)],
        "Seconds since the watchdog last came by Prometheus and Alertmanager. Empty where none was ever sent here.",
        unit="s", defaults={"min": 0},
    )  # fmt: skip


def _cpu() -> Panel:
    used = f"sum by (instance) (rate(process_cpu_seconds_total{{{OURS}}}[$__rate_interval]))"
    return lines( "CPU", [target(used, _EACH)], "Processor cores that the control plane's process keeps busy.",
        unit="suffix: cores", defaults={"min": 0},
    )  # fmt: skip


def _memory() -> Panel:
    return lines( "Memory", [target(f"max by (instance) (process_resident_memory_bytes{{{OURS}}})", _EACH)],
        "Main memory that the control plane's process holds.", unit="bytes", defaults={"min": 0},
    )  # fmt: skip


def _files() -> Panel:
    held = f"max by (instance) (process_open_fds{{{OURS}}}) / max by (instance) (process_max_fds{{{OURS}}})"
    return lines( "Open files and connections", [target(held, _EACH)],
        "Share of the files and sockets that it may have open; it holds one connection to every endpoint.",
        unit="percentunit", defaults={"min": 0}, custom={"axisSoftMax": 0.1},
    )  # fmt: skip
