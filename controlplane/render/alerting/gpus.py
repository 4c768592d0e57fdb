"""Alerts about GPUs, as dcgm-exporter tells of them: Xids by what is to be done, GPUs that are gone, broken memory.

Xids are counted by code (`DCGM_EXP_XID_ERRORS_COUNT`, which wants a line in dcgm-exporter's list of counters). The
gauge of the last Xid stays for ever and does not move when one repeats, so it is only looked at where it has changed
and no count is exposed. Pure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from controlplane.fleet.model import PRIMARY
from controlplane.render.alerting.proof import Proof, Wave, line
from controlplane.render.alerting.rules import Alert, Record, Severity, anchored
from controlplane.render.alerting.subject import Subject
from controlplane.signals.engines import FATAL_XIDS


@dataclass(frozen=True, slots=True)
class XidClass:
    """Xids after which the same thing is to be done."""

    alert: str
    xids: tuple[int, ...]
    severity: Severity
    what: str
    act: str


_DRAIN = "Take its endpoint out of rotation and let its requests end; "

XID_CLASSES = (
    XidClass(
        "GpuNodeMustReboot", (79, 151, 160), Severity.CRITICAL,
        "The GPU is lost to its driver (79: it has fallen off the bus), and no reset brings it back.",
        _DRAIN + "cordon and drain the node, reboot the machine. Twice on one GPU: have it replaced.",
    ),
    XidClass(
        "GpuMustBeReset", (46, 48, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158, 162),
        Severity.CRITICAL,
        "The GPU works no more, or no more rightly, until it is reset: a double-bit error, a halted controller, a "
        "time-out of its firmware.",
        _DRAIN + "drain every process that uses it, `nvidia-smi --gpu-reset -i GPU`. A second 48 or 64: replace it.",
    ),
    XidClass(
        "GpuLinkFailed", (74, *range(144, 151)), Severity.CRITICAL,
        "NVLink between GPUs fails: a model spread over them hangs or slows down, whichever of them told.",
        _DRAIN + "drain the node and run NVIDIA's field diagnosis; look at all GPUs of the link.",
    ),
    XidClass(
        "GpuNeedsHands", (54, 78), Severity.WARNING,
        "Power cabling (54) or the version of driver and virtual GPU (78) is wrong: no reset mends it.",
        _DRAIN + "have the power connectors looked at, or bring driver and software in line.",
    ),
    XidClass(
        "GpuApplicationFault", (13, 31, 43, 45, 94), Severity.INFO,
        "The program that ran on the GPU failed (an illegal access, contained memory error): the GPU itself is well.",
        "See that the engine was restarted. After 94, see whether a row remap waits for the next reset.",
    ),
)  # fmt: skip
"""By what NVIDIA's catalogue asks for, as NVSentinel ships it. All but the last together are `FATAL_XIDS`."""

_COUNT = "DCGM_EXP_XID_ERRORS_COUNT"
_LAST = "DCGM_FI_DEV_XID_ERRORS"
_GPU = "service, pool, instance, hostname, Hostname, gpu, UUID"
"""dcgm-exporter renamed `Hostname` to `hostname` in 2026: both are in the field."""
GPUS = "instance:gpus:count"
"""The series of how many GPUs each exporter tells of."""
_LABELS = {"pool": PRIMARY, "instance": "10.0.0.1:9400", "hostname": "node-a", "gpu": "0", "UUID": "GPU-1"}


def records(subject: Subject) -> Iterator[Record]:
    """Give how many GPUs each exporter tells of."""
    yield Record(GPUS, f"count by (service, pool, instance) (DCGM_FI_DEV_GPU_UTIL{{{subject.of_engines}}})")


def alerts(subject: Subject) -> Iterator[Alert]:
    """Give every alert of this group."""
    for kind in XID_CLASSES:
        yield _xid(subject, kind)
    yield _last_xid(subject)
    yield _missing(subject)
    yield _fewer(subject)
    yield _memory(subject)
    yield _remap(subject)


def _xid(subject: Subject, kind: XidClass) -> Alert:
    code = str(kind.xids[0])
    harmless = next(str(c.xids[0]) for c in XID_CLASSES if c is not kind)
    labels = {**_LABELS, "xid": code}
    return Alert(
        kind.alert,
        f"max by ({_GPU}, xid) ({_COUNT}{{{subject.of_engines}, "
        f'xid=~"{"|".join(map(str, kind.xids))}"}} < 1e15) > 0',
        kind.severity,
        "none",
        "GPU {{ $labels.gpu }} of {{ $labels.instance }} reports Xid {{ $labels.xid }}, {{ $value }} times in its "
        "counting window",
        anchored(kind.alert),
        kind.what,
        kind.act,
        Proof(
            (
                Wave(line(_COUNT, **labels, window_size_in_ms="300000"), 2, well=0),
                Wave(line(_COUNT, **{**labels, "xid": harmless}, window_size_in_ms="300000"), 5, well=5),
            ),
            2, labels,
        ),
        needs=subject.policy.publish.scrape,
    )  # fmt: skip


def _last_xid(subject: Subject) -> Alert:
    series = f"{_LAST}{{{subject.of_engines}}}"
    fatal = "\n  or ".join(f"{series} {bounds}" for bounds in _ranges(FATAL_XIDS))
    return Alert(
        "GpuXidFatal",
        f"(\n  {fatal}\n)\nand\nchanges({series}[10m]) > 0\nunless on (UUID)\n{_COUNT}",
        Severity.CRITICAL,
        "none",
        "GPU {{ $labels.gpu }} of {{ $labels.instance }} newly reports Xid {{ $value }}, after which it must be reset "
        "or replaced",
        anchored("GpuXidFatal"),
        "Told by the gauge of the last Xid, which shows a repeated one only once: dcgm-exporter does not export "
        "DCGM_EXP_XID_ERRORS_COUNT here.",
        "Look the number up in NVIDIA's catalogue of Xids, and add the counter to dcgm-exporter's list.",
        Proof(
            (Wave(line(_LAST, **_LABELS, err_code="0"), 79, well=31, after=13),), 79, {**_LABELS, "err_code": "0"},
            lasts=timedelta(minutes=1),
        ),
        needs=subject.policy.publish.scrape,
    )  # fmt: skip


def _ranges(codes: Sequence[int]) -> Iterator[str]:
    """Give comparisons that let exactly these numbers through, runs of neighbours as one."""
    runs: list[list[int]] = []
    for code in sorted(codes):
        if runs and code == runs[-1][-1] + 1:
            runs[-1].append(code)
        else:
            runs.append([code])
    for run in runs:
        yield f"== {run[0]}" if len(run) == 1 else f">= {run[0]} <= {run[-1]}"


def _missing(subject: Subject) -> Alert:
    labels = {"service": subject.policy.service, "pool": PRIMARY, "signal": "gpus_missing"}
    return Alert(
        "GpusMissing",
        f'controlplane_signal_value{{{subject.of}, signal="gpus_missing"}} > 0',
        Severity.CRITICAL,
        "none",
        "{{ $value }} GPUs of pool {{ $labels.pool }} answered before and do not any more",
        anchored("GpusMissing"),
        "A GPU fell off the bus, lost its driver or was taken away. The engine on it is dead or soon will be.",
        "See the kernel's log for Xid 79 on the node; drain it and reboot.",
        Proof((Wave(line("controlplane_signal_value", **labels), 1, well=0),), 1, labels),
        dwell=timedelta(seconds=30),
        needs=subject.looks,
        labels={"signal": "gpus_missing"},
    )


def _fewer(subject: Subject) -> Alert:
    labels = {"pool": PRIMARY, "instance": "10.0.0.1:9400"}
    stays, goes = {**labels, "UUID": "GPU-1"}, {**labels, "UUID": "GPU-2"}
    return Alert(
        "GpuGone",
        f"max_over_time({GPUS}{{{subject.of_engines}}}[1h]) - {GPUS}{{{subject.of_engines}}} > 0",
        Severity.CRITICAL,
        "none",
        "{{ $value }} GPUs of {{ $labels.instance }} are gone from its dcgm-exporter",
        anchored("GpuGone"),
        "Within the last hour the exporter of this node told of more GPUs than now.",
        "See the kernel's log for Xid 79 on the node; drain it and reboot.",
        Proof(
            (
                Wave(line("DCGM_FI_DEV_GPU_UTIL", **stays), 40, well=40),
                Wave(line("DCGM_FI_DEV_GPU_UTIL", **goes), None, well=40),
            ),
            1, labels, settles=timedelta(minutes=2), lasts=timedelta(minutes=1),
        ),
        dwell=timedelta(seconds=30),
        needs=subject.policy.publish.scrape,
    )  # fmt: skip


def _memory(subject: Subject) -> Alert:
    return Alert(
        "GpuMemoryError",
        f"increase(DCGM_FI_DEV_ECC_DBE_VOL_TOTAL{{{subject.of_engines}}}[10m]) > 0",
        Severity.CRITICAL,
        "none",
        "GPU {{ $labels.gpu }} of {{ $labels.instance }} has double-bit memory errors",
        anchored("GpuMemoryError"),
        "The memory of a GPU was wrong and could not be corrected: what the engine computed with it may be, too.",
        "Take its endpoint out of rotation, drain it, reset the GPU; have it replaced when it comes again.",
        Proof(
            (Wave(line("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", **_LABELS), 1, well=0, grows=True),), 1, _LABELS,
            lasts=timedelta(minutes=1), resolves=timedelta(minutes=10),
        ),
        needs=2 * subject.policy.publish.scrape,
    )  # fmt: skip


def _remap(subject: Subject) -> Alert:
    return Alert(
        "GpuRowRemapFailed",
        f"DCGM_FI_DEV_ROW_REMAP_FAILURE{{{subject.of_engines}}} > 0 < 1e15",
        Severity.WARNING,
        "none",
        "GPU {{ $labels.gpu }} of {{ $labels.instance }} could not replace a broken row of its memory",
        anchored("GpuRowRemapFailed"),
        "It has no spare rows left where they are needed: the next error of that row will not be corrected.",
        "Plan its replacement; until then keep it out of the primary pool.",
        Proof((Wave(line("DCGM_FI_DEV_ROW_REMAP_FAILURE", **_LABELS), 1, well=0),), 1, _LABELS),
    )
