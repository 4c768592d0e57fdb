"""Whether what was rendered can be believed: PromQL that finds its series, links that lead somewhere, fresh proof.

`promql` takes expressions apart, `artefact` reads the files by their content, `finding` scores what is found; `static`,
`links` and `freshness` need the files alone, `live` asks a Prometheus through a port. Nothing here touches a file, a
socket or a clock: `runtime/linting` does, for `controlplane lint`.
"""
