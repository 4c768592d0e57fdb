"""What an experienced person knows of each alert about a GPU, by what its error calls for; a table by name; pure."""

from collections.abc import Mapping

from controlplane.render.runbooks.causes import GPU_LOST, NODE_LOST, RELEASE, SHARED_GPU
from controlplane.render.runbooks.guides import BY_SIGNAL, Guide
from controlplane.render.runbooks.measures import Measure

M = Measure

_OUT = (M.KEEP, M.PIN, M.DRAIN, M.RESTART)
_GONE = BY_SIGNAL["gpus_missing"]

GPUS: Mapping[str, Guide] = {
    "GpuApplicationFault": Guide(
        "The request that met it failed, perhaps its whole batch; the GPU itself is well.",
        (M.KEEP, M.RESTART, M.ROLL_BACK),
        "Read the engine's log at the Xid's second: an illegal address (31) or a trap (13) is a bug in a kernel.",
        "If it began with a release, go back; else report it upstream with the request that does it.",
        "A release on one replica first, and its Xids watched for a day.",
        (RELEASE, GPU_LOST),
    ),
    "GpuGone": _GONE,
    "GpusMissing": _GONE,
    "GpuLinkFailed": Guide(
        "Replicas that span GPUs hang or fail in their collectives; those on one GPU do not notice.",
        _OUT,
        "See which link and which two ends (`nvidia-smi nvlink --status`); an error on one side only is its own end.",
        "Reset both ends; a link that fails again wants its bridge, baseboard or switch replaced.",
        "Error counters of links on the dashboard; they grow before a link fails.",
        (GPU_LOST,),
    ),
    "GpuMemoryError": BY_SIGNAL["gpu_ecc_errors"],
    "GpuRowRemapFailed": Guide(
        "Nothing yet, perhaps: the next bad row in that GPU's memory cannot be put aside any more.",
        (M.KEEP, M.DRAIN),
        "Take it out of serving; run the vendor's diagnostics.",
        "Return it: a failed remap is a reason for replacement by the vendor's own rules.",
        "Watch how many remaps are left, not only whether one failed.",
        (GPU_LOST,),
    ),
    "GpuMustBeReset": Guide(
        "The engine on it serves nothing, or garbage, until the GPU is reset; its siblings carry the load.",
        _OUT,
        "With nothing running on it any more: `nvidia-smi --gpu-reset -i N`; GPUs that are linked are reset together.",
        "Run a short diagnostic before it serves again; twice in a week is a replacement.",
        "Driver and firmware under change control.",
        (GPU_LOST,),
    ),
    "GpuNodeMustReboot": Guide(
        "Everything on that node's GPUs is lost until it has rebooted; a reset of the GPU alone does not help.",
        (M.KEEP, M.PIN, M.DRAIN),
        "Drain the node, then reboot it; a GPU off the bus (79) often wants a power cycle instead.",
        "Look at power, heat and seating: a GPU that falls off the bus again is a hardware case.",
        "Nodes whose GPUs are not all there must not become ready.",
        (GPU_LOST, NODE_LOST),
    ),
    "GpuNeedsHands": Guide(
        "That GPU serves nobody until somebody has touched the machine; plan without it.",
        (M.KEEP, M.PIN, M.DRAIN),
        "Open a case with the Xid, the serial number and the diagnostic's output (`nvidia-bug-report.sh`).",
        "Replace the part; burn it in before it serves.",
        "A spare node, and a contract whose time fits the promise.",
        (GPU_LOST,),
    ),
    "GpuXidFatal": Guide(
        "Requests on that GPU fail or give garbage; with tensor parallelism its whole replica is lost.",
        _OUT,
        "Look the Xid's number up: it says whether engine, GPU, node or hands are wanted.",
        "Run the vendor's diagnostics before the GPU serves again.",
        "Driver and firmware under change control; a burn-in for every GPU that comes back.",
        (GPU_LOST, SHARED_GPU),
    ),
}  # fmt: skip
