"""Tokens and sessions on disk."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.security.roles import Role
from controlplane.security.tokens import SESSION_LASTS, Session, Token, digest
from controlplane.store.database import Database
from controlplane.store.tokens import KEPT_AFTER_END, StoredSessions, StoredTokens

NOW = datetime(2026, 11, 22, 3, 4, 5, tzinfo=UTC)
TOKEN = Token("0123456789ab", "ann", Role.OPERATOR, digest("secret"), NOW, "bob", NOW + timedelta(days=1))
SESSION = Session(digest("cookie"), "ann", Role.OPERATOR, TOKEN.id, NOW, NOW, NOW + SESSION_LASTS)


async def test_a_token_is_kept_found_used_and_taken_back_with_its_sessions(database: Database) -> None:
    tokens, sessions = StoredTokens(database), StoredSessions(database)
    await tokens.add(TOKEN)
    assert await tokens.find(TOKEN.id) == TOKEN
    assert await tokens.find("000000000000") is None
    await tokens.used(TOKEN.id, NOW)
    await sessions.begin(SESSION)
    await sessions.begin(replace(SESSION, hashed="x", credential="oidc"))
    assert await tokens.revoke(TOKEN.id, NOW, "bob")
    assert not await tokens.revoke(TOKEN.id, NOW + timedelta(hours=1), "eve")
    assert await tokens.every() == (replace(TOKEN, last_used_at=NOW, revoked_at=NOW, revoked_by="bob"),)
    ended, other = await sessions.find(SESSION.hashed), await sessions.find("x")
    assert (ended.ended_at, other.ended_at) == (NOW, None) if ended and other else pytest.fail("a session is lost")


async def test_a_session_is_seen_and_ends_once(database: Database) -> None:
    sessions = StoredSessions(database)
    await sessions.begin(SESSION)
    await sessions.seen(SESSION.hashed, NOW + timedelta(minutes=5))
    await sessions.end(SESSION.hashed, NOW + timedelta(minutes=6))
    await sessions.end(SESSION.hashed, NOW + timedelta(minutes=7))
    seen, ended = NOW + timedelta(minutes=5), NOW + timedelta(minutes=6)
    assert await sessions.find(SESSION.hashed) == replace(SESSION, seen_at=seen, ended_at=ended)


async def test_sessions_that_are_long_over_are_forgotten(database: Database) -> None:
    sessions = StoredSessions(database)
    await sessions.begin(SESSION)
    later = NOW + SESSION_LASTS + KEPT_AFTER_END + timedelta(seconds=1)
    await sessions.begin(replace(SESSION, hashed="new", created_at=later, expires_at=later + SESSION_LASTS))
    assert await sessions.find(SESSION.hashed) is None
    assert await sessions.find("new") is not None
