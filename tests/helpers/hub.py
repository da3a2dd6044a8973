"""A server on this machine that answers as the Hugging Face Hub does for the files of a repository."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from pathlib import Path
from typing import Any


class HubServer:
    """Serves the files of a folder as ``models/NAME`` of a repository, and their list.

    :param folder: may be changed while it serves
    """

    def __init__(self, repository: str, folder: Path) -> None:
        self.repository, self.folder = repository, folder
        self.requests: list[str] = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub._answer(self, body=False)

            def do_GET(self) -> None:
                hub._answer(self, body=True)

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def downloads(self) -> list[str]:
        """Files that were sent."""
        return [r for r in self.requests if r.startswith("GET") and "/resolve/" in r]

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, request: Any, body: bool) -> None:
        self.requests.append(f"{request.command} {request.path}")
        prefix = f"/{self.repository}/resolve/main/models/"
        path = self.folder / request.path.removeprefix(prefix)
        if request.path.startswith(f"/api/models/{self.repository}/tree/main"):
            files = [file for file in sorted(self.folder.iterdir()) if file.is_file()]
            listed = [
                {"type": "file", "path": f"models/{f.name}", "size": f.stat().st_size, "oid": "0" * 40} for f in files
            ]
            data, kind = json.dumps(listed).encode(), "application/json"
        elif request.path.startswith(prefix) and path.is_file():
            data, kind = path.read_bytes(), "application/octet-stream"
        else:
            request.send_error(404)
            return
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(data)))
        request.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        request.send_header("X-Repo-Commit", "c" * 40)
        request.end_headers()
        if body:
            request.wfile.write(data)
