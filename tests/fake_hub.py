"""The Hugging Face Hub's side of a push, as a real HTTP server on loopback: it keeps repositories and refuses as the Hub does."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

SPACE = r"/api/spaces/(?P<repo>[^/]+/[^/]+)"


@dataclass
class Repo:
    files: dict[str, bytes] = field(default_factory=dict)
    sdk: str = "gradio"
    private: bool = False
    sha: str = "0" * 40


@dataclass
class Hub:
    """`tokens` name their role, `stages` are told one after the other once something was uploaded, the last for ever."""

    tokens: dict[str, str] = field(default_factory=lambda: {"hf_good": "write", "hf_reader": "read"})
    owners: tuple[str, ...] = ("jane", "studio")
    repos: dict[str, Repo] = field(default_factory=dict)
    stages: list[str] = field(default_factory=lambda: ["BUILDING", "APP_STARTING", "RUNNING"])
    message: str = ""
    host: str = "http://127.0.0.1:9"
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)  # a piece of the path -> status, words
    asked: list[str] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)  # LFS objects
    address: str = ""
    late: int = 0  # times that an update is not noticed at first: the old version runs on


@contextmanager
def fake_hub(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self):
            path = unquote(urlsplit(self.path).path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.asked.append(f"{self.command} {path}")
            status, found, headers = _answer(hub, self.command, path, body, self.headers)
            data = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_HEAD = answer

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


def _answer(hub, method, path, body, headers):
    role = hub.tokens.get((headers.get("Authorization") or "").removeprefix("Bearer "))
    for piece, (status, words) in hub.refuse.items():
        if piece in path:
            return status, {"error": words}, {"X-Error-Message": words}
    if path.startswith("/lfs/"):
        hub.stored[path.removeprefix("/lfs/")] = body
        return 200, {}, {}
    if path == "/api/whoami-v2":
        if role is None:
            return (
                401,
                {"error": "Invalid credentials"},
                {"X-Error-Message": "Invalid credentials in Authorization header"},
            )
        orgs = [{"name": name} for name in hub.owners[1:]]
        return 200, {"name": hub.owners[0], "orgs": orgs, "auth": {"accessToken": {"role": role}}}, {}
    if path == "/api/validate-yaml":
        bad = "colorFrom: mauve" in json.loads(body)["content"]
        return (400, b'"colorFrom" must be one of [red, yellow]', {}) if bad else (200, {"errors": []}, {})
    if path == "/api/repos/create":
        asked = json.loads(body)
        repo = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] not in hub.owners:
            return 403, {"error": "You don't have the rights"}, {"X-Error-Message": "You don't have the rights"}
        hub.repos[repo] = Repo(
            {"README.md": b"", ".gitattributes": b""}, asked["sdk"], asked.get("visibility") == "private"
        )
        return 200, {"url": f"{hub.address}/spaces/{repo}", "name": repo}, {}
    if found := re.match(
        r"/spaces/(?P<repo>[^/]+/[^/]+?)(\.git/info/lfs/objects/batch|/resolve/[^/]+/(?P<file>.+))$", path
    ):
        repo, file = hub.repos[found["repo"]], found["file"]
        if file:
            if file not in repo.files:
                return 404, {}, {"X-Error-Code": "EntryNotFound"}
            digest = hashlib.sha1(repo.files[file]).hexdigest()
            return 200, repo.files[file], {"ETag": f'"{digest}"', "X-Repo-Commit": repo.sha}
        put = lambda o: {"upload": {"href": f"{hub.address}/lfs/{o['oid']}", "header": {}}}  # noqa: E731
        objects = [{**o, "actions": put(o)} for o in json.loads(body)["objects"]]
        return 200, {"transfer": "basic", "objects": objects}, {"Content-Type": "application/vnd.git-lfs+json"}
    if found := re.match(SPACE + r"(?P<rest>/.*)?$", path):
        if found["repo"] not in hub.repos:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        return _repo(hub, hub.repos[found["repo"]], found["repo"], found["rest"] or "", body)
    return 404, {"error": f"no such route {path}"}, {}


def _repo(hub, repo, name, rest, body):
    if rest == "/runtime":
        late, hub.late = hub.late, max(0, hub.late - 1)
        if late:
            return 200, {"stage": "RUNNING", "hardware": {}, "sha": "f" * 40}, {}
        stage = hub.stages.pop(0) if len(hub.stages) > 1 else hub.stages[0]
        return 200, {"stage": stage, "hardware": {}, "sha": repo.sha, "errorMessage": hub.message}, {}
    if rest.startswith("/preupload/"):
        kind = lambda path: "lfs" if path.endswith(".onnx") else "regular"  # noqa: E731
        files = [f["path"] for f in json.loads(body)["files"]]
        return 200, {"files": [{"path": p, "uploadMode": kind(p), "shouldIgnore": False} for p in files]}, {}
    if rest.startswith("/tree/"):
        return 200, [{"type": "file", "path": p, "size": len(b), "oid": "1"} for p, b in repo.files.items()], {}
    if rest.startswith("/commit/"):
        for line in map(json.loads, body.decode().splitlines()):
            key, value = line["key"], line["value"]
            if key == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                repo.files[value["path"]] = hub.stored[value["oid"]]
            elif key == "deletedFile":
                del repo.files[value["path"]]
        repo.sha = hashlib.sha1(repr(sorted(repo.files)).encode()).hexdigest()
        url = f"{hub.address}/spaces/{name}/commit/{repo.sha}"
        return 200, {"commitUrl": url, "commitOid": repo.sha, "success": True}, {}
    siblings = [{"rfilename": file} for file in repo.files]
    about = {
        "id": name,
        "sdk": repo.sdk,
        "private": repo.private,
        "host": hub.host,
        "siblings": siblings,
        "sha": repo.sha,
    }
    return 200, about, {}
