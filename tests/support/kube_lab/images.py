"""A container image made by hand: busybox and its applets, in the form that `docker save` writes."""

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

PAUSE = ["/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done"]
"""What the image does where it is not told otherwise: nothing, until it is asked to end."""


def busybox_image(busybox: Path, name: str, out: Path) -> None:
    """Write an image.

    Args:
        busybox: the static program.
        name: what the image is called, such as `docker.io/lab/busybox:1`.
        out: the archive.
    """
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    layer = _layer(busybox, [applet for applet in applets if applet != "busybox"])
    config = json.dumps({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Entrypoint": PAUSE, "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }).encode()  # fmt: skip
    named = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": named, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(out, "w") as archive:
        for path, content in ((named, config), ("layer.tar", layer), ("manifest.json", manifest)):
            _add(archive, path, content)


def _layer(busybox: Path, applets: list[str]) -> bytes:
    """Return a root directory: one program, a link for each thing it can do, and places to mount on."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as layer:
        for path in ("bin", "dev", "etc", "host", "proc", "sys", "tmp"):
            directory = tarfile.TarInfo(path)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            layer.addfile(directory)
        _add(layer, "bin/busybox", busybox.read_bytes(), 0o755)
        for applet in applets:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            layer.addfile(link)
    return packed.getvalue()


def _add(archive: tarfile.TarFile, path: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
