"""A renewed certificate is served, and whoever pins it is told, though the disk was full for a moment."""

import ssl
from pathlib import Path

from controlplane.runtime.certificates import Renewal
from controlplane.settings import ServeSettings
from tests.support.kube_lab.pki import Pki


def put(papers: tuple[Path, Path], folder: Path) -> tuple[Path, Path]:
    """Put a certificate and its key where the server looks for them."""
    there = folder / "cert.pem", folder / "key.pem"
    for paper, place in zip(papers, there, strict=True):
        place.write_text(paper.read_text())
    return there


async def test_a_certificate_that_could_not_be_written_down_is_written_down_at_a_later_tick(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    cert, key = put(pki.sign("first", "/CN=first"), tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    settings = ServeSettings(tmp_path, tmp_path, tls_cert=cert, tls_key=key)
    renewal = Renewal(settings, context, "https://127.0.0.1:1")
    await renewal.tick()
    assert not settings.pinned_file.exists(), "nothing is new"
    second, its_key = pki.sign("second", "/CN=second")
    put((second, its_key), tmp_path)
    settings.pinned_file.mkdir()  # As on a full disk: nothing can be put there.
    await renewal.tick()
    await renewal.tick()
    settings.pinned_file.rmdir()
    await renewal.tick()
    assert settings.pinned_file.read_text().split() == second.read_text().split()
    settings.pinned_file.unlink()
    await renewal.tick()
    assert not settings.pinned_file.exists(), "it is written down once"
