"""A Hugging Face Hub on loopback, as much of its HTTP protocol as a push and a pull of a model need.

Uploads by Git LFS's basic transfer, not by Xet (HF_HUB_DISABLE_XET=1). Its answers are checked by huggingface-hub itself.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_" + "t" * 20
REPO = r"([\w.-]+/[\w.-]+)"


class Hub(ThreadingHTTPServer):
    """repos: name -> private, and commits (hash, {path: bytes}), the newest last. `wrong`: path -> (code, X-Error-Code)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}
        self.wrong: dict[str, int] = {}
        self.spoil: dict[str, bytes] = {}  # path in a repository -> what is sent in its place
        self.seen: list[str] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, repo: str, revision: str | None = None) -> tuple[str, dict[str, bytes]]:
        commits = self.repos[repo]["commits"]
        named = [commit for commit in commits if commit[0] == revision]
        if revision not in (None, "main") and not named:
            raise KeyError(revision)
        return (named or commits)[-1]

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        text = json.dumps([repo, sorted(files), len(self.repos[repo]["commits"])])
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.repos[repo]["commits"].append((sha, files))
        return sha

    def create(self, repo: str, files: dict[str, bytes], private: bool = False) -> str:
        self.repos[repo] = {"private": private, "commits": []}
        return self.commit(repo, files)


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: object) -> None:
        pass

    def answer(self, code: int, body: bytes | dict[str, Any] = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        named = {"Content-Length": str(len(data))} | {name.replace("_", "-"): text for name, text in headers.items()}
        for name, text in named.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def handle_any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append(f"{self.command} {path}")
        self.allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        for part, code in self.server.wrong.items():
            if part in path:
                return self.answer(code, {"error": "the \x1b[31mserver\x1b[0m says no"})
        for pattern, does in ROUTES.items():
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                return does(self, body, *match.groups())
        return self.answer(404, {"error": "no such route"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if not self.allowed:
            return self.answer(401, {"error": "Invalid credentials"})
        if name in self.server.repos:
            return self.answer(409, {"error": "exists", "url": f"{self.server.url}/{name}"})
        self.server.create(name, {".gitattributes": b""}, asked["visibility"] == "private")
        return self.answer(200, {"url": f"{self.server.url}/{name}", "name": name})

    def validate(self, body: bytes) -> None:
        content = json.loads(body)["content"]
        try:
            front = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)[1])
            assert front["library_name"] == "resfit"
        except (yaml.YAMLError, TypeError, KeyError) as error:
            return self.answer(400, {"errors": [{"message": str(error)}], "warnings": []})
        return self.answer(200, {"errors": [], "warnings": []})

    def preupload(self, body: bytes, repo: str, revision: str) -> None:
        def mode(path: str) -> str:
            return "lfs" if path.endswith((".safetensors", ".onnx")) else "regular"

        files = [{"path": file["path"], "uploadMode": mode(file["path"])} for file in json.loads(body)["files"]]
        self.answer(200, {"files": [file | {"shouldIgnore": False} for file in files]})

    def batch(self, body: bytes, repo: str) -> None:
        objects = [
            {**o, "actions": {"upload": {"href": f"{self.server.url}/lfs/{o['oid']}"}}}
            for o in json.loads(body)["objects"]
        ]
        self.answer(200, {"transfer": "basic", "objects": objects})

    def put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.blobs[oid] = body
        self.answer(200)

    def accept(self, body: bytes, repo: str, revision: str) -> None:
        before, there = self.server.files(repo)
        files = dict(there)
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header" and value.get("parentCommit", before) != before:
                return self.answer(412, {"error": "the branch moved"})
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        sha = self.server.commit(repo, files)
        return self.answer(
            200, {"commitUrl": f"{self.server.url}/{repo}/commit/{sha}", "commitOid": sha, "success": True}
        )

    def info(self, body: bytes, repo: str, revision: str | None = None) -> None:
        if repo not in self.server.repos or (self.server.repos[repo]["private"] and not self.allowed):
            return self.answer(404 if self.allowed else 401, {"error": "not found"}, X_Error_Code="RepoNotFound")
        try:
            sha, files = self.server.files(repo, revision)
        except KeyError:
            return self.answer(404, {"error": "no revision"}, X_Error_Code="RevisionNotFound")
        siblings = []
        for name, data in files.items():
            row = {
                "rfilename": name,
                "size": len(data),
                "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
            }
            if name.endswith((".safetensors", ".onnx")):
                row["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 1}
            siblings.append(row)
        private = self.server.repos[repo]["private"]
        return self.answer(200, {"id": repo, "sha": sha, "private": private, "siblings": siblings, "tags": []})

    def resolve(self, body: bytes, repo: str, revision: str, path: str) -> None:
        _, files = self.server.files(repo, revision)
        data = self.server.spoil.get(path, files[path])
        self.answer(200, data, X_Repo_Commit=revision, ETag=f'"{hashlib.sha1(data).hexdigest()}"')


ROUTES = {
    "POST /api/repos/create": Handler.create,
    "POST /api/validate-yaml": Handler.validate,
    f"POST /api/models/{REPO}/preupload/(.*)": Handler.preupload,
    f"POST /api/models/{REPO}/commit/(.*)": Handler.accept,
    f"POST /{REPO}\\.git/info/lfs/objects/batch": Handler.batch,
    "PUT /lfs/(.*)": Handler.put,
    f"GET /api/models/{REPO}": Handler.info,
    f"GET /api/models/{REPO}/revision/(.*)": Handler.info,
    f"(?:GET|HEAD) /{REPO}/resolve/([^/]*)/(.*)": Handler.resolve,
}
