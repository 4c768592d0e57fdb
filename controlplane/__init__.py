"""A resilience control plane for LLM inference fleets.

It watches the fleet, decides how degraded it is, pulls the lever that keeps users served, and proves with real
faults that the levers work in the time promised.

The map of this tree, top to bottom; a room may import only the rooms below it::

    cli          the command line: one file a command group
    runtime      wiring (the only module that names concrete drivers), scheduler, the serving process
    web          the HTTP API, the event stream, the console
    flows        observe, decide, drill, recover, publish: one a journey    | store   what must survive a crash
    lint         whether what was rendered can be believed: queries, links, proofs
    render       alerts, dashboards, runbooks: made from the policy
    policy       controlplane.yaml -> Policy
    degradation  the P0-P2 matrix, its machine, the levers   | chaos   faults, leases, drills   | incidents
    slo          thresholds, bands, verdicts                 | probes  one look at one endpoint
    signals      what is measured: catalogue, windows, quantiles
    fleet        services, pools, endpoints
    settings, telemetry, clock, wholefile                    errors
    target       the bundled reference fleet: a stranger, started by the command line only

The glossary (service, pool, endpoint, probe, sample, signal, window, threshold, verdict, matrix, row, level, action,
actuator, receipt, objective, fault, lease, substrate, experiment, drill, incident, runbook, evidence) stands in the
README; the code uses these words and no others.
"""

__version__ = "0.1.0"
