"""A stand-in for Grafana's HTTP API: folders and dashboards by uid, as its documentation and its answers say.

It holds to what matters to a client: tokens and their roles, versions (`412 version-mismatch`), provisioned dashboards
(400), folders that must exist, a save without `folderUid` that moves to the root, uids of at most 40 characters.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

EDITOR, VIEWER = "glsa_editor", "glsa_viewer"

Answer = tuple[int, Any]


@dataclass
class Store:
    """What a Grafana keeps, and what it was asked."""

    folders: dict[str, dict[str, Any]] = field(default_factory=dict)
    dashboards: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By uid: `{"dashboard": ..., "folder": uid, "provisioned": bool, "message": text}`."""
    writes: list[str] = field(default_factory=list)
    """Every request that changed something, as `POST /api/...`."""
    before_save: Callable[[], None] | None = None
    """Called once when a dashboard is about to be saved: somebody else is quicker."""
    newer: bool = False
    """A newer Grafana adds defaults to what it gives and raises the version of the schema."""
    broken: Answer | None = None
    """Answers everything with this."""
    redirect: str = ""
    """Sends everybody there."""
    url: str = ""

    def answer(self, method: str, path: str, token: str, body: Any) -> Answer:
        """Answer one request."""
        if self.broken:
            return self.broken
        if token not in (EDITOR, VIEWER):
            return 401, {"message": "Invalid API key" if token else "Unauthorized", "traceID": ""}
        if method == "POST" and token == VIEWER:
            needed = "folders:create" if path == "/api/folders" else "dashboards:create"
            text = f"You'll need additional permissions to perform this action. Permissions needed: {needed}"
            return 403, {"accessErrorId": "ACE0000000001", "message": text, "title": "Access denied"}
        match method, path.strip("/").split("/"):
            case "GET", ["api", "folders", uid]:
                found = self.folders.get(uid)
                return (200, found) if found else (404, {"message": "folder not found", "status": "not-found"})
            case "POST", ["api", "folders"]:
                return self._make_folder(body)
            case "GET", ["api", "dashboards", "uid", uid]:
                return self._give(uid)
            case "POST", ["api", "dashboards", "db"]:
                return self._save(body)
        return 404, {"message": "Not found"}

    def _make_folder(self, body: dict[str, Any]) -> Answer:
        uid, title = body["uid"], body["title"]
        if uid in self.folders:
            return 409, {"message": "a folder with the same name already exists in the current location"}
        made = {"id": len(self.folders) + 1, "uid": uid, "title": title, "version": 1, "url": f"/dashboards/f/{uid}/x"}
        self.folders[uid] = made
        self.writes.append("POST /api/folders")
        return 200, made

    def _give(self, uid: str) -> Answer:
        kept = self.dashboards.get(uid)
        if kept is None:
            return 404, {"message": "Dashboard not found", "traceID": ""}
        given = deepcopy(kept["dashboard"])
        if self.newer:
            given |= {"schemaVersion": 42, "preload": False, "fiscalYearStartMonth": 0}
            for panel in given["panels"]:
                panel.setdefault("transparent", False)
        meta = {"folderUid": kept["folder"], "version": given["version"], "url": f"/d/{uid}/x", "canSave": True,
                "provisioned": kept["provisioned"]}  # fmt: skip
        return 200, {"meta": meta, "dashboard": given}

    def _save(self, body: dict[str, Any]) -> Answer:
        if self.before_save:
            quicker, self.before_save = self.before_save, None
            quicker()
        sent = deepcopy(body["dashboard"])
        uid, folder = sent["uid"], body.get("folderUid", "")
        if not sent.get("title"):
            return 400, {"message": "Dashboard title cannot be empty", "status": "empty-name"}
        if len(uid) > 40:
            return 400, {"message": "uid too long, max 40 characters"}
        if folder and folder not in self.folders:
            return 400, {"message": "folder not found", "status": "not-found"}
        kept = self.dashboards.get(uid)
        if kept and kept["provisioned"]:
            return 400, {"message": "Cannot save provisioned dashboard"}
        if kept and not body.get("overwrite") and sent.get("version") != kept["dashboard"]["version"]:
            text = "The dashboard has been changed by someone else"
            return 412, {"message": text, "status": "version-mismatch"}
        if not kept and sent.get("id"):
            return 404, {"message": "Dashboard not found", "status": "not-found"}
        sent["id"] = kept["dashboard"]["id"] if kept else len(self.dashboards) + 1
        sent["version"] = kept["dashboard"]["version"] + 1 if kept else 1
        message = body.get("message", "")
        self.dashboards[uid] = {"dashboard": sent, "folder": folder, "provisioned": False, "message": message}
        self.writes.append("POST /api/dashboards/db")
        return 200, {"id": sent["id"], "uid": uid, "url": f"/d/{uid}/x", "status": "success",
                     "version": sent["version"], "slug": "x", "folderUid": folder}  # fmt: skip


@contextmanager
def fake_grafana(prefix: str = "") -> Iterator[Store]:
    """Run one on a free port of the loopback address; `prefix` is the path it is served under, such as `/grafana`."""
    store = Store()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            if store.redirect:
                self._send(302, b"", "text/html", {"location": store.redirect})
                return
            path = self.path.removeprefix(prefix) if self.path.startswith(f"{prefix}/api/") else "/elsewhere"
            token = self.headers.get("authorization", "").removeprefix("Bearer ")
            status, content = store.answer(self.command, path, token, body)
            if isinstance(content, str):
                self._send(status, content.encode(), "text/html")
            else:
                self._send(status, json.dumps(content).encode(), "application/json")

        def _send(self, status: int, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"content-type": kind, "content-length": str(len(body)), **(more or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        store.url = f"http://127.0.0.1:{server.server_address[1]}{prefix}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield store
        finally:
            server.shutdown()
            thread.join(5)
