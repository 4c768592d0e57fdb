"""The verdict on a pool is the worst that is known of it, and unknown where nothing vouches for it."""

import pytest

from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence, judge

OK, WARN, BREACH, UNKNOWN = Band.OK, Band.WARN, Band.BREACH, Band.UNKNOWN


def seen(**bands: Band) -> list[Evidence]:
    return [Evidence(name, None if band is UNKNOWN else 1.0, band) for name, band in bands.items()]


@pytest.mark.parametrize(
    ("bands", "verdict"),
    [
        ({}, UNKNOWN),
        ({"availability": OK}, OK),
        ({"availability": UNKNOWN}, UNKNOWN),
        ({"availability": OK, "gpu_utilization": UNKNOWN}, OK),
        ({"availability": UNKNOWN, "cpu_utilization": OK}, UNKNOWN),
        ({"cpu_utilization": OK}, UNKNOWN),
        ({"availability": OK, "latency_p99": WARN}, WARN),
        ({"availability": OK, "latency_p99": WARN, "error_rate": BREACH}, BREACH),
        ({"availability": BREACH}, BREACH),
        ({"availability": UNKNOWN, "error_rate": BREACH}, BREACH),
        ({"availability": UNKNOWN, "error_rate": WARN}, WARN),
    ],
)
def test_a_pool_is_as_bad_as_the_worst_that_is_known_of_it(bands: dict[str, Band], verdict: Band) -> None:
    assert judge("primary", seen(**bands)).band is verdict


def test_the_evidence_stays_with_the_verdict_even_what_is_unknown() -> None:
    verdict = judge("primary", iter(seen(availability=OK, gpu_utilization=UNKNOWN)))
    assert [e.signal for e in verdict.evidence] == ["availability", "gpu_utilization"]
    gpu = verdict.signal("gpu_utilization")
    assert gpu is not None
    assert gpu.band is UNKNOWN
    assert verdict.signal("queue_depth") is None
