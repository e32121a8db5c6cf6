"""A stand-in for SwanLab's server: what the SDK 0.10 asks of it, everything recorded, faults on demand."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

API_KEY = "a-key-for-tests"
USERNAME = "tester"


@dataclass
class Experiment:
    """What the server got for one run."""

    id: str
    project: str
    name: str
    starts: int = 1
    config: dict[str, Any] = field(default_factory=dict)
    scalars: list[tuple[str, int, float]] = field(default_factory=list)
    media: list[tuple[str, int, list[str]]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    states: list[str] = field(default_factory=list)
    logs: list[Any] = field(default_factory=list)

    def series(self, key: str) -> dict[int, float]:
        """The values of one key by step."""
        return {step: value for name, step, value in self.scalars if name == key}

    def texts(self, key: str, step: int) -> list[str]:
        """The texts logged under a key at a step."""
        names = [name for logged, at, data in self.media if (logged, at) == (key, step) for name in data]
        return [self.files[name] for name in names]

    def twice(self) -> list[tuple[str, int]]:
        """Every key and step that came more than once."""
        points = [(key, step) for key, step, _ in self.scalars] + [(key, step) for key, step, _ in self.media]
        return [point for point, times in Counter(points).items() if times > 1]


class SwanLabServer:
    """Listens on a port of its own from `start` to `stop`; it can be started again on the same port."""

    def __init__(self) -> None:
        self.experiments: dict[str, Experiment] = {}
        self.projects: set[str] = set()
        self.requests: list[str] = []
        self.fault: str | None = None
        """None, `fail` (every answer is 503), `hang` (none comes), `drop` (the connection closes)."""
        self.has_summaries = True
        """False: it does not say yet what it has of a run that is resumed."""
        self._released = threading.Event()
        self._port = 0
        self._http: ThreadingHTTPServer | None = None

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def variables(self) -> dict[str, str]:
        """The environment variables with which the SDK reaches this server."""
        return {"SWANLAB_API_HOST": self.host, "SWANLAB_WEB_HOST": self.host, "SWANLAB_API_KEY": API_KEY}

    def only_experiment(self) -> Experiment:
        """The experiment, when there is exactly one."""
        (experiment,) = self.experiments.values()
        return experiment

    def start(self) -> None:
        """Begins to answer."""
        self._released.clear()
        server = self

        class Handler(_Handler):
            owner = server

        self._http = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._http.daemon_threads = True
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """From now on connections are refused; those that hang are closed."""
        self._released.set()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def wait_for_release(self) -> None:
        """Holds a request until the server stops."""
        self._released.wait()


@contextlib.contextmanager
def serving() -> Iterator[SwanLabServer]:
    """A server that answers until the block ends."""
    server = SwanLabServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()


class _Handler(BaseHTTPRequestHandler):
    owner: SwanLabServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are recorded, not printed."""

    def _serve(self) -> None:
        path = urlsplit(self.path).path
        self.owner.requests.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.owner.fault == "hang":
            self.owner.wait_for_release()
        if self.owner.fault in ("hang", "drop"):
            self.close_connection = True
            return
        if self.owner.fault == "fail":
            self._answer(503, {"code": "down", "message": "down for maintenance"})
            return
        parts = path.strip("/").split("/")
        if parts[:1] == ["upload"]:
            self.owner.experiments[parts[1]].files["/".join(parts[2:])] = body.decode()
            self._answer(200, {})
            return
        self._answer(*self._respond(parts[1:], json.loads(body) if body else {}))

    def _answer(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _respond(self, parts: list[str], body: Any) -> tuple[int, Any]:
        match (self.command, *parts):
            case ("POST", "login", "api_key"):
                return self._login()
            case ("GET", "project", user, project):
                known = project in self.owner.projects
                return (200, _project(user, project)) if known else (404, {"message": "Not Found"})
            case ("POST", "projects", user) | ("POST", "project", user):
                self.owner.projects.add(body["name"])
                return 201, _project(user, body["name"])
            case ("POST", "project", _, project, "experiment"):
                return self._experiment(project, body)
            case ("PUT", "project", _, _, "runs", run, "profile"):
                self.owner.experiments[run].config |= body.get("config", {})
            case ("PUT", "project", _, _, "runs", run, "state"):
                self.owner.experiments[run].states.append(body["state"])
            case ("POST", "house", "metrics"):
                self._metrics(body)
            case ("GET", "house", "metrics", "summaries", _, run):
                return 200, _summary(self.owner.experiments[run]) if self.owner.has_summaries else {}
            case ("POST", "resources", "presigned", "put"):
                base = f"{self.owner.host}/upload/{body['experimentId']}"
                return 200, {"urls": [f"{base}/{path}" for path in body["paths"]]}
        return 200, {}

    def _login(self) -> tuple[int, Any]:
        if self.headers.get("authorization") != API_KEY:
            return 401, {"code": "unauthorized", "message": "unknown API key"}
        user = {"username": USERNAME, "name": USERNAME}
        return 200, {"sid": "session", "expiredAt": "2999-01-01T00:00:00.000Z", "userInfo": user}

    def _experiment(self, project: str, body: Any) -> tuple[int, Any]:
        run = body["cuid"]
        known = self.owner.experiments.get(run)
        if known is None:
            self.owner.experiments[run] = Experiment(id=run, project=project, name=body["name"])
        else:
            known.starts += 1
        created = "2026-01-01T00:00:00.000Z"
        return 200 if known else 201, {"cuid": run, "slug": run, "name": body["name"], "createdAt": created}

    def _metrics(self, body: Any) -> None:
        experiment = self.owner.experiments[body["experimentId"]]
        for metric in body["metrics"]:
            if body["type"] == "scalar":
                experiment.scalars.append((metric["key"], metric["index"], metric["data"]))
            elif body["type"] == "media":
                experiment.media.append((metric["key"], metric["index"], metric["data"]))
            else:
                experiment.logs.append(metric)


def _project(user: str, name: str) -> dict[str, Any]:
    counts = {"experiments": 0, "contributors": 1, "collaborators": 0, "clones": 0}
    path = f"/{user}/{name}"
    group = {"username": user}
    return {"cuid": "p-1", "name": name, "path": path, "visibility": "PRIVATE", "group": group, "_count": counts}


def _summary(experiment: Experiment) -> dict[str, Any]:
    def last(points: list[tuple[str, int, Any]]) -> list[dict[str, Any]]:
        steps: dict[str, int] = {}
        for key, step, _ in points:
            steps[key] = max(step, steps.get(key, -1))
        return [{"key": key, "step": step} for key, step in steps.items()]

    return {"log": [], "media": last(experiment.media), "scalar": last(experiment.scalars)}
