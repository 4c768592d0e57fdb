"""What a control plane keeps in its directory is its own; what several are given in common is one."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from controlplane.runtime import state_dir
from controlplane.runtime.state_dir import webhook_token
from controlplane.settings import ServeSettings
from controlplane.wholefile import write_whole


def test_replicas_that_start_at_once_with_one_file_for_webhooks_have_one_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, at_once = tmp_path / "webhook-token", threading.Barrier(2)

    def write_together(path: Path, text: str, mode: int) -> None:
        with suppress(threading.BrokenBarrierError):  # Nobody else wants to write it.
            at_once.wait(0.3)
        write_whole(path, text, mode)

    def start(name: str) -> str:
        return webhook_token(ServeSettings(tmp_path / name, tmp_path, webhook_token=file))

    monkeypatch.setattr(state_dir, "write_whole", write_together)
    with ThreadPoolExecutor(2) as replicas:
        tokens = set(replicas.map(start, ("a", "b")))
    assert tokens == {file.read_text(encoding="utf-8").strip()}
    assert file.stat().st_mode & 0o777 == 0o600
