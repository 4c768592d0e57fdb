"""Where everything of a fleet lies: addresses, links, CPUs, who publishes to whom."""

from pathlib import Path

from controlplane.target.layout import Layout, lay_out, node_names, ports_needed
from controlplane.target.rundir import RunDir
from controlplane.target.spec import CacheSpec, EndpointSpec, FleetSpec

RUN = RunDir(Path("/run/fleet"))


def placed(spec: FleetSpec, homes: dict[str, tuple[str, str, int]] | None = None) -> Layout:
    ports = range(20_000, 20_000 + ports_needed(spec))
    return lay_out(spec, RUN, ports=ports, token="secret", cpus=[0, 1], homes=homes or {}, outside="10.0.0.1" if homes else "127.0.0.1")  # noqa: E501  # fmt: skip


def test_clients_reach_an_endpoint_through_its_link() -> None:
    for seat in placed(FleetSpec(RUN.root)).seats:
        assert seat.link is not None
        assert (seat.port, seat.endpoint.port) == (seat.link.port, seat.link.backend_port)
        assert seat.port != seat.endpoint.port
        assert seat.discovered["targets"] == [f"127.0.0.1:{seat.port}"]
        assert seat.link.control == RUN.link(seat.node).resolve()


def test_the_gateway_has_a_way_to_each_endpoint_that_nobody_else_uses() -> None:
    for seat in placed(FleetSpec(RUN.root)).seats:
        assert seat.link is not None
        assert seat.place.port == seat.link.gateway_port
        assert seat.place.port not in (seat.port, seat.endpoint.port)


def test_without_links_clients_reach_the_endpoint_itself() -> None:
    for seat in placed(FleetSpec(RUN.root, links=False)).seats:
        assert seat.link is None
        assert seat.port == seat.endpoint.port


def test_no_port_is_given_twice() -> None:
    layout = placed(FleetSpec(RUN.root))
    ports = [layout.doors.public, layout.doors.admin, layout.doors.fills]
    ports += [port for seat in layout.seats for port in (seat.port, seat.gateway_port, seat.endpoint.port)]
    assert len(set(ports)) == len(ports)


def test_endpoints_publish_to_the_cache_only_what_it_stands_in_for() -> None:
    seats = placed(FleetSpec(RUN.root)).seats
    (cache,) = [seat for seat in seats if isinstance(seat.endpoint, CacheSpec)]
    told = {seat.pool: seat.endpoint.publish_url for seat in seats if isinstance(seat.endpoint, EndpointSpec)}
    at = f"http://127.0.0.1:{cache.port}"
    assert told == {"primary": at, "standby": at, "base": None}
    assert isinstance(cache.endpoint, CacheSpec)
    assert cache.endpoint.directory == RUN.answers.resolve() / "cache-0"


def test_the_cache_asks_the_gateways_own_door_and_shares_its_token_with_the_endpoints() -> None:
    layout = placed(FleetSpec(RUN.root))
    (cache,) = [seat.endpoint for seat in layout.seats if isinstance(seat.endpoint, CacheSpec)]
    assert cache.upstream == f"http://127.0.0.1:{layout.doors.fills}"
    assert cache.token == "secret"
    assert "secret" not in repr(layout)


def test_namespaces_take_the_place_of_links() -> None:
    spec = FleetSpec(RUN.root, netns=True)
    homes = {node: (f"ns-{node}", f"10.0.0.{n + 2}", 8000) for n, node in enumerate(node_names(spec.pools))}
    layout = placed(spec, homes)
    assert all(seat.link is None for seat in layout.seats)
    first = layout.seats[0]
    assert (first.host, first.port, first.endpoint.netns) == ("10.0.0.2", 8000, "ns-node-primary-0")
    assert layout.doors.fills_host == "10.0.0.1"


def test_endpoints_take_turns_on_the_cpus_only_when_asked() -> None:
    assert {seat.endpoint.cpus for seat in placed(FleetSpec(RUN.root)).seats} == {()}
    pinned = placed(FleetSpec(RUN.root, pin_cpus=True)).seats
    assert [seat.endpoint.cpus for seat in pinned] == [(0,), (1,), (0,), (1,), (0,)]
