"""A stand-in for dcgm-exporter on a machine without a GPU: its names and labels, made-up and moving figures."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

GPUS = (0, 1)
LABELS = (
    'gpu="{gpu}",UUID="GPU-{gpu}",pci_bus_id="00000000:0{gpu}:00.0",device="nvidia{gpu}",modelName="H100",hostname="a"'
)


def page() -> str:
    """Return the page as it is now: two GPUs at work; one has had an error of the application, and a fatal one."""
    passed = int(time.time())
    lines = []
    for gpu in GPUS:
        labels = LABELS.format(gpu=gpu)
        figures = {
            "DCGM_FI_DEV_GPU_UTIL": 40 + gpu * 20 + passed % 5,
            "DCGM_FI_DEV_MEM_COPY_UTIL": 30 + gpu,
            "DCGM_FI_DEV_FB_USED": 60_000,
            "DCGM_FI_DEV_FB_FREE": 20_000,
            "DCGM_FI_DEV_GPU_TEMP": 55 + gpu,
            "DCGM_FI_DEV_POWER_USAGE": 350.5 + passed % 7,
            "DCGM_FI_DEV_SM_CLOCK": 1980,
            "DCGM_FI_DEV_MEM_CLOCK": 2619,
            "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": 0,
            "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": 0,
        }
        lines += [f"{name}{{{labels}}} {value}" for name, value in figures.items()]
        for xid in (13, 79):
            lines.append(f'DCGM_EXP_XID_ERRORS_COUNT{{{labels},window_size_in_ms="300000",xid="{xid}"}} {gpu}')
    return "\n".join(lines) + "\n"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = page().encode()
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


@contextmanager
def gpu_exporter(port: int) -> Iterator[str]:
    """Serve the page on a port of the loopback address; give its address without a path."""
    with ThreadingHTTPServer(("127.0.0.1", port), _Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.shutdown()
            thread.join(5)
