"""Tokens: their shape, their hashes, when they hold, and that comparing tells nothing by its time."""

import hmac
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.security.roles import Role
from controlplane.security.tokens import Token, csrf_of, digest, id_of, same, same_text, spell

NOW = datetime(2026, 11, 22, tzinfo=UTC)
TOKEN = Token("0123456789ab", "ann", Role.VIEWER, "", NOW, "bob")


def test_a_token_reads_as_one_and_nothing_else_does() -> None:
    text = spell("0123456789ab", secrets.token_urlsafe(32))
    assert id_of(text) == "0123456789ab"
    for other in ("", "x", text[:-1], text + "x", text.upper(), " " + text, "cpt_0123456789ab_", text + "\n"):
        assert id_of(other) is None


def test_a_token_holds_until_its_end() -> None:
    assert TOKEN.holds(NOW + timedelta(days=9999))
    ends = replace(TOKEN, expires_at=NOW + timedelta(days=1))
    assert ends.holds(NOW)
    assert not ends.holds(NOW + timedelta(days=1))
    assert not replace(TOKEN, revoked_at=NOW).holds(NOW)


def test_a_secret_is_its_hashs_and_no_other_is() -> None:
    assert same("secret", digest("secret"))
    for other in ("", "secre", "secretx", "Secret", "\udcff"):
        assert not same(other, digest("secret"))


@pytest.mark.parametrize(("compare", "arguments"), [(same, ("secret", digest("x"))), (same_text, ("a", "b"))])
def test_secrets_are_compared_in_constant_time(
    monkeypatch: pytest.MonkeyPatch, compare: object, arguments: tuple[str, str]
) -> None:
    """Time itself cannot be asserted on a busy machine: what is asserted is that the one function for it decides."""
    seen: list[tuple[object, object]] = []
    really = hmac.compare_digest

    def noted(a: bytes, b: bytes) -> bool:
        seen.append((a, b))
        return really(a, b)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    assert compare(*arguments) is False  # type: ignore[operator]
    assert len(seen) == 1
    assert len(seen[0][0]) == len(seen[0][1]) or compare is same_text  # type: ignore[arg-type]


def test_what_a_form_sends_back_tells_nothing_of_the_cookie() -> None:
    assert csrf_of("cookie") != csrf_of("cookie2")
    assert "cookie" not in csrf_of("cookie")
    assert csrf_of("cookie") != digest("cookie"), "nor is it what the store keeps"
