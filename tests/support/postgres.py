"""A PostgreSQL server of its own for tests: a new cluster in a directory that goes, reached by a socket in it."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from controlplane.store.database import open_database

ACCOUNT = "postgres"
"""PostgreSQL does not run as root; whoever else runs the tests runs it themselves."""
TEMPLATE = "migrated"
"""A database with our schema and nothing in it."""


def binaries() -> Path | None:
    """Return where Debian keeps the newest server's programs; None when there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


class Server:
    """One server, which can be stopped and started again."""

    def __init__(self, programs: Path, folder: Path, *, durable: bool) -> None:
        """Make the cluster and start it."""
        self._programs = programs
        self._folder = folder
        self._user = ACCOUNT if os.getuid() == 0 else None
        self._options = f"-k {folder} -c listen_addresses='' -c fsync={'on' if durable else 'off'}"
        self._made = 0
        if self._user:
            shutil.chown(folder, self._user)
        # Not the machine's collation but a language's: what is sorted as text must not depend on it.
        words = ("--locale-provider=icu", "--icu-locale=en-US", "--locale=C.UTF-8")
        self._run("initdb", "-D", folder / "data", "-A", "trust", "-E", "UTF8", *words)
        self.start()

    def url(self, name: str = "postgres") -> str:
        """Return the SQLAlchemy URL of a database."""
        account = self._user or pwd.getpwuid(os.getuid()).pw_name
        return f"postgresql+psycopg://{account}@/{name}?host={self._folder}"

    def start(self) -> None:
        """Start the server; it answers when this returns."""
        self._run("pg_ctl", "-D", self._folder / "data", "-l", self._folder / "log", "-o", self._options, "-w", "start")

    def stop(self, how: str = "immediate") -> None:
        """Stop it: `immediate` as a crash would, `fast` as an administrator does."""
        self._run("pg_ctl", "-D", self._folder / "data", "-m", how, "-t", "30", "-w", "stop")

    def end(self) -> None:
        """End it whatever it takes; its children go with it."""
        lock = self._folder / "data" / "postmaster.pid"
        if not lock.exists():
            return
        pid = int(lock.read_text().split()[0])
        try:
            self.stop()
        except AssertionError:
            os.kill(pid, signal.SIGKILL)

    def ask(self, statement: str, name: str = "postgres") -> list[Any]:
        """Run one statement behind everybody's back."""
        import psycopg  # noqa: PLC0415 - not everybody who runs tests has it

        with psycopg.connect(self.url(name).replace("+psycopg", ""), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def fresh(self, template: str = "template1") -> str:
        """Make a database and return its URL."""
        self._made += 1
        name = f"t{self._made}"
        self.ask(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Take a database away, whoever is still connected to it."""
        self.ask(f"DROP DATABASE {name_of(url)} WITH (FORCE)")

    def make_template(self) -> None:
        """Make the database that a fresh one with our schema is copied from: a tenth of the migrations' time."""
        self.ask(f"CREATE DATABASE {TEMPLATE}")
        with closing(open_database(self.url(TEMPLATE))):
            pass

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [self._programs / program, *map(str, arguments)], user=self._user, cwd="/", stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
        said = self._folder / "log"
        assert done.returncode == 0, f"{done.stderr}\n{said.read_text()[-3000:] if said.exists() else ''}"


def name_of(url: str) -> str:
    """Return the name of the database that a URL of ours leads to."""
    return url.partition("@/")[2].partition("?")[0]


@contextmanager
def server(programs: Path, *, durable: bool = False) -> Iterator[Server]:
    """Run a server. One for a bench waits for the disk."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        made = Server(programs, folder, durable=durable)
        try:
            yield made
        finally:
            made.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres(programs: Path, *, durable: bool = False) -> Iterator[str]:
    """Run a server; give the SQLAlchemy URL of an empty database."""
    with server(programs, durable=durable) as running:
        yield running.url()


@contextmanager
def server_or_skip() -> Iterator[Server]:
    """Run a server, or skip whoever asked where there is none."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    with server(programs) as running:
        yield running
