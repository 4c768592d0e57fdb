"""Where requests may go: neither to a metadata service, nor by another scheme, nor past the page's list."""

from pathlib import Path

import pytest

from controlplane.errors import PolicyError
from controlplane.policy.load import Loaded, loads
from controlplane.security.outbound import OutboundSpec, refused_address, refused_host, refused_url

ANY = OutboundSpec()
PAGE = """\
service: tiny
fleet:
  pools:
    primary: {{ endpoints: {{ static: ["{endpoint}"] }} }}
  gateway: {{ webhook: {{ url: "{url}", listener: "https://chat.example.com", secret: "env:X" }} }}
alertmanager: "{alertmanager}"
"""


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "2002:a9fe:a9fe::1",
     "fd00:ec2::254", "100.100.100.200", "224.0.0.1", "ff02::1"],
)  # fmt: skip
def test_link_local_metadata_and_multicast_addresses_are_refused(address: str) -> None:
    assert "metadata" in refused_address(address, ANY)
    assert refused_host(address, ANY)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "192.168.1.1", "::1", "2001:db8::1", "gateway.internal"])
def test_other_addresses_and_names_are_not(address: str) -> None:
    assert refused_address(address, ANY) == ""


def test_one_that_the_page_allows_is_not_and_its_neighbours_are() -> None:
    spec = OutboundSpec(link_local=("169.254.20.10",))
    assert refused_address("169.254.20.10", spec) == ""
    assert refused_address("169.254.20.11", spec)


def test_a_list_of_hosts_is_all_that_may_be_called_but_for_the_fleet() -> None:
    spec = OutboundSpec(hosts=("*.internal", "10.0.0.9"))
    assert refused_host("hooks.internal", spec) == ""
    assert refused_host("HOOKS.Internal", spec) == ""
    assert refused_host("10.0.0.9", spec) == ""
    assert "outbound.hosts" in refused_host("internal.evil.example", spec)
    assert refused_host("10.0.1.1", spec, known=("10.0.1.1",)) == ""
    assert refused_host("169.254.169.254", OutboundSpec(hosts=("*",)))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a", "gopher://a:70/", "//a", "http://", "http://[", "a"])
def test_only_http_and_https_are_spoken(url: str) -> None:
    assert refused_url(url, ANY)


@pytest.mark.parametrize(
    ("named", "where"),
    [({"url": "http://169.254.169.254/latest"}, "fleet.gateway.webhook.url"), ({"url": "ftp://a/b"}, "webhook.url"),
     ({"alertmanager": "http://[fe80::1]:9093"}, "alertmanager"),
     ({"endpoint": "http://169.254.169.254:80"}, "primary.endpoints.static[0]")],
)  # fmt: skip
def test_a_page_that_names_such_an_address_is_refused_with_its_line(named: dict[str, str], where: str) -> None:
    with pytest.raises(PolicyError) as refused:
        load(**named)
    (problem,) = [p for p in refused.value.problems if "may not be called" in p.what]
    assert where in problem.what
    assert problem.where.startswith("page.yaml:")
    assert "outbound" in problem.fix


def test_a_page_can_allow_one_and_can_name_all_hosts_there_are() -> None:
    policy = load("outbound: { link_local: [169.254.169.254] }", url="http://169.254.169.254/x").policy
    assert policy.outbound.link_local == ("169.254.169.254",)
    assert policy.fleet_hosts == ("10.0.1.1",)
    hosts = 'outbound: {{ hosts: ["hooks.internal", "chat.example.com"{}] }}'
    with pytest.raises(PolicyError) as refused:
        load(hosts.format(""))
    assert ["alertmanager" in p.what for p in refused.value.problems] == [True]
    assert load(hosts.format(', "am"')).policy.outbound.hosts == ("hooks.internal", "chat.example.com", "am")


def load(
    more: str = "",
    *,
    url: str = "http://hooks.internal/x",
    alertmanager: str = "http://am:9093",
    endpoint: str = "http://10.0.1.1:8000",
) -> Loaded:
    text = PAGE.format(url=url, alertmanager=alertmanager, endpoint=endpoint)
    return loads(text + more + "\n", Path("page.yaml"))
