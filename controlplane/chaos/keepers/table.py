"""Which works there are."""

from collections.abc import Callable, Mapping

from controlplane.chaos.keepers.burn import Burn
from controlplane.chaos.keepers.fill import Fill
from controlplane.chaos.keepers.flood import Flood
from controlplane.chaos.keepers.hold import Hold
from controlplane.chaos.keepers.keeper import Work
from controlplane.chaos.keepers.stall import Stall

Settings = Mapping[str, float | str]

WORKS: Mapping[str, Callable[[Settings], Work]] = {
    "burn": Burn.read,
    "fill": Fill.read,
    "flood": Flood.read,
    "hold": Hold.read,
    "stall": Stall.read,
}
