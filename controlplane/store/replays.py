"""Keys of writes and their answers in the database: `security.replays.ReplayBook`."""

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from controlplane.security.replays import KEPT, Answer, Known, Sent
from controlplane.store.database import Database
from controlplane.store.schema import replays


class StoredReplays:
    """Every key of the last day."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, sent: Sent) -> Known | None:
        """Keep a new key; what is kept under it already is returned instead."""
        old = delete(replays).where(replays.c.begun_at < sent.at - KEPT)
        query = select(replays).where(replays.c.key == sent.key).with_for_update()
        row = {"key": sent.key, "content": sent.content, "begun_at": sent.at, "status": 0, "headers": {}, "body": b""}

        def work(connection: Connection) -> Known | None:
            connection.execute(old)
            found = connection.execute(query).one_or_none()
            if found is None:
                try:
                    connection.execute(insert(replays).values(row))
                except IntegrityError:  # Another control plane was asked the same in the same moment.
                    connection.rollback()
                    return Known(sent.content, None)
                return None
            answer = Answer(found.status, found.headers, bytes(found.body)) if found.status else None
            return Known(found.content, answer)

        return await self._database.change(work)

    async def end(self, key: str, answer: Answer) -> None:
        """Keep what the write was answered."""
        values = {"status": answer.status, "headers": dict(answer.headers), "body": answer.body}
        await self._database.run(lambda c: c.execute(update(replays).where(replays.c.key == key).values(values)))

    async def forget(self, key: str) -> None:
        """Forget a key: its write failed, and may be sent again."""
        await self._database.run(lambda c: c.execute(delete(replays).where(replays.c.key == key)))
