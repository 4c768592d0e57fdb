"""`python -m bench [NAME]`: run all benches, or one."""

import importlib
import sys
from pathlib import Path

from bench.figures import report

NOT_BENCHES = {
    "__init__", "__main__", "bare", "classic", "crash_plane", "deaths", "figures", "fleet", "hooked", "paper", "poster",
    "prober", "reach", "replicas", "simulated",
}  # fmt: skip
NAMES = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem not in NOT_BENCHES)


def main() -> int:
    """Run what is asked for; exit status 2 for a name there is none of."""
    wanted = [name.replace("-", "_") for name in sys.argv[1:]] or NAMES
    for name in wanted:
        if name not in NAMES:
            print(f"no bench `{name}`; there are: {', '.join(NAMES)}", file=sys.stderr)
            return 2
    for name in wanted:
        report(name.replace("_", "-"), importlib.import_module(f"bench.{name}").run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
