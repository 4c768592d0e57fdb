"""The sections of the GPUs, by dcgm-exporter's names; shut, once for each pool that has one; pure.

Grafana's classic dashboards cannot hide a section, so this one asks nothing until it is opened, and stands for nothing
where no series of a GPU exists. Called by the overview and the detail.
"""

from controlplane.policy.model import Policy
from controlplane.render.dashboards.board import Section, Shelf
from controlplane.render.dashboards.palette import ALARM, GRAY, levels_of
from controlplane.render.dashboards.panels import Panel, dashed, lines, named, now, stat, table, target
from controlplane.render.dashboards.readings import GPU, GPU_POOLS, TITLES, signal
from controlplane.signals.engines import FATAL_XIDS
from controlplane.signals.sample import CATALOGUE

_TITLE = "GPUs of $gpu_pool"
_EACH = "pool, endpoint, gpu"
_NAME = "{{endpoint}} GPU {{gpu}}"


def gpus_at_a_glance(policy: Policy) -> Section:
    """Return what the overview shows of GPUs: how busy, how full, how hot."""
    pools = 'service="$service", pool=~"$gpu_pool"'
    return Section(
        _TITLE,
        (
            Shelf(
                7,
                (
                    (8, signal(policy, "gpu_utilization", engine=False, pools=pools)),
                    (8, signal(policy, "gpu_memory_utilization", engine=False, pools=pools)),
                    (8, _temperature()),
                ),
            ),
        ),
        per=GPU_POOLS.name,
    )


def gpus_in_detail(policy: Policy) -> Section:
    """Return everything about each GPU."""
    return Section(
        _TITLE,
        (
            Shelf(7, ((8, _utilization(policy)), (8, _memory(policy)), (8, _temperature()))),
            Shelf(7, ((8, _power()), (8, _clocks()), (8, _copying()))),
            Shelf(6, ((6, _missing()), (18, _errors()))),
        ),
        per=GPU_POOLS.name,
    )


def _gauge(name: str, how: str = "max") -> str:
    """Return a gauge of each GPU; DCGM writes what it cannot read as a number near 2^63, which is left out."""
    return f"{how} by ({_EACH}) ({name}{{{GPU}}} < 1e15)"


def _utilization(policy: Policy) -> Panel:
    seen = CATALOGUE["gpu_utilization"]
    return lines( TITLES[seen.name], [target(f"{_gauge('DCGM_FI_DEV_GPU_UTIL')} / 100", _NAME)],
        "Share of time in which a kernel ran. Busy alone is not ill: a full batch looks the same as a stuck kernel; "
        "see whether tokens move.", unit="percentunit", defaults={"min": 0, "max": 1},
        steps=levels_of(seen, policy.thresholds.get(seen.name)), thresholdsStyleMode="dashed",
    )  # fmt: skip


def _memory(policy: Policy) -> Panel:
    seen = CATALOGUE["gpu_memory_utilization"]
    used, free = _gauge("DCGM_FI_DEV_FB_USED"), _gauge("DCGM_FI_DEV_FB_FREE")
    return lines( TITLES[seen.name], [target(f"{used} / ({used} + {free})", _NAME)],
        "Used share of the frame buffer. Engines take nearly all of it at the start, for weights and the key-value "
        "cache: how full that cache is says more.", unit="percentunit", defaults={"min": 0, "max": 1},
        steps=levels_of(seen, policy.thresholds.get(seen.name)),
    )  # fmt: skip


def _temperature() -> Panel:
    return lines( "GPU temperature", [target(_gauge("DCGM_FI_DEV_GPU_TEMP"), _NAME)],
        "Degrees Celsius of each GPU. Near its slow-down temperature, which the model sets, the clocks fall.",
        unit="celsius",
    )  # fmt: skip


def _power() -> Panel:
    return lines( "GPU power", [target(_gauge("DCGM_FI_DEV_POWER_USAGE"), _NAME)],
        "Watts that each GPU draws. A GPU that is busy and draws little waits for memory or for its peers.",
        unit="watt", defaults={"min": 0},
    )  # fmt: skip


def _clocks() -> Panel:
    return lines( "GPU clocks",
        [target(f"{_gauge('DCGM_FI_DEV_SM_CLOCK')} * 1e6", _NAME),
         target(f"{_gauge('DCGM_FI_DEV_MEM_CLOCK')} * 1e6", f"{_NAME}, memory", "B")],
        "Clocks of the multiprocessors, and of the memory (dashed). Falling at the same load: heat or power is short.",
        unit="hertz", defaults={"min": 0}, overrides=[dashed("/, memory$/")],
    )  # fmt: skip


def _copying() -> Panel:
    return lines( "GPU memory copying", [target(f"{_gauge('DCGM_FI_DEV_MEM_COPY_UTIL')} / 100", _NAME)],
        "Share of time in which the memory was read or written: decoding is bound by it.",
        unit="percentunit", defaults={"min": 0, "max": 1},
    )  # fmt: skip


def _missing() -> Panel:
    there = f"count(max by ({_EACH}) (DCGM_FI_DEV_GPU_UTIL{{{GPU}}}))"
    before = f"count(max by ({_EACH}) (max_over_time(DCGM_FI_DEV_GPU_UTIL{{{GPU}}}[$__range])))"
    return stat( "GPUs missing", [now(f"{before} - {there}", "missing"), now(there, "there", "B")],
        "GPUs that gave figures in the time that is shown and give none now, beside those that do: one that has fallen "
        "off the bus is absent, not zero.", steps=ALARM, options={"textMode": "value_and_name"},
        orientation="vertical", overrides=[named("there", GRAY)],
    )  # fmt: skip


def _errors() -> Panel:
    fatal = "|".join(str(xid) for xid in FATAL_XIDS)

    def counted(series: str, ref: str) -> dict[str, object]:
        return now(f"sum by ({_EACH}) ({series})", "", ref, form="table")

    shown = {"pool": "Pool", "endpoint": "Endpoint", "gpu": "GPU", "Value #A": "fatal Xids", "Value #B": "other Xids",
             "Value #C": "double-bit errors", "Value #D": "PCIe replays"}  # fmt: skip
    return table( "Errors of the GPUs",
        [
            counted(f'DCGM_EXP_XID_ERRORS_COUNT{{{GPU}, xid=~"{fatal}"}}', "A"),
            counted(f'DCGM_EXP_XID_ERRORS_COUNT{{{GPU}, xid!~"{fatal}"}}', "B"),
            counted(f"increase(DCGM_FI_DEV_ECC_DBE_VOL_TOTAL{{{GPU}}}[$__range])", "C"),
            counted(f"increase(DCGM_FI_DEV_PCIE_REPLAY_COUNTER{{{GPU}}}[$__range])", "D"),
        ],
        "Fatal Xids need a reset or another GPU, the others are the application's own; both over dcgm-exporter's "
        "window, and only where its list of counters has DCGM_EXP_XID_ERRORS_COUNT. Double-bit memory errors and PCIe "
        "replays grew by so much in the time that is shown. A field stays empty where its counter is not exported.",
        shown, unit="short",
    )  # fmt: skip
