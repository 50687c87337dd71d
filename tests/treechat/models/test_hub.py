"""The real hub client with a small local hub, and without a hub."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from treechat.errors import ModelError
from treechat.models import hub

COMMIT = "c" * 40
GOOD = {
    "config.json": b"{}",
    "model.safetensors": b"w" * 300_000,
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"a pickle",
    "modeling_evil.py": b"import os",
    "onnx/model.safetensors": b"another format",
}
REPOS = {
    "org/good": GOOD,
    "org/pickles": {"config.json": b"{}", "pytorch_model.bin": b"a pickle"},
    "org/ggufs": {},
}
RESOLVE = """
import json, os, shutil, sys
from treechat import errors, models
from treechat.models import resolver
seen = []
if made := os.environ.get("CONVERTED"):
    resolver.convert_gguf = lambda gguf, into, progress: shutil.copytree(made, into, dirs_exist_ok=True)
def progress(each):
    seen.append(each)
    if sys.argv[2:] == ["stop"] and each.done > 2:
        raise KeyError("stopped")
try:
    files = models.resolve(sys.argv[1], progress)
    out = {"path": str(files.path), "source": files.source, "ready": models.is_ready(sys.argv[1])}
    out["installed"] = [m.name for m in models.installed()]
    out["done"] = max(p.done for p in seen) if seen else None
    if sys.argv[2:] == ["remove"]:
        out["freed"] = models.remove(files.name)
        out["after"] = [m.name for m in models.installed()]
except errors.ModelError as error:
    out = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
except KeyError:
    out = {"ready": models.is_ready(sys.argv[1]), "installed": [m.name for m in models.installed()]}
print(json.dumps(out))
"""


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's API that a download of public files needs."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = self.path.split("?")[0].strip("/").split("/")
        api = parts[0] == "api"
        repo = "/".join(parts[2:4] if api else parts[:2])
        if repo == "org/gated" or repo not in REPOS:
            code = "GatedRepo" if repo == "org/gated" else "RepoNotFound"
            return self.answer(403 if repo == "org/gated" else 404, b"{}", {"X-Error-Code": code})
        names = REPOS[repo]
        if not api:
            content = names.get("/".join(parts[4:]))
            if content is None:
                return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return self.answer(200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'})
        files = [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in names.items()]
        if "tree" in parts:
            return self.answer(200, json.dumps(files).encode())
        siblings = [{"rfilename": name} for name in names]
        return self.answer(200, json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode())

    def answer(self, status, content, headers=None):
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def endpoint(tiny_gguf):
    REPOS["org/ggufs"]["Tiny-Q8_0.gguf"] = tiny_gguf.read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def ask(tmp_path):
    """Resolve in a separate process, because huggingface_hub reads its environment at import."""

    def run(spec, *more, **variables):
        proxies = {name for name in os.environ if name.lower().endswith("_proxy")}
        environment = {name: value for name, value in os.environ.items() if name not in proxies}
        environment |= {"HF_HOME": str(tmp_path / "hf"), "TREECHAT_CACHE_DIR": str(tmp_path / "cache")}
        environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **variables}
        command = [sys.executable, "-c", RESOLVE, spec, *more]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stderr == "", "nothing may be written over the screen"
        return json.loads(done.stdout)

    return run


def test_a_hub_model_is_fetched_without_pickles_and_code_then_used_offline_and_removed(ask, endpoint, tmp_path):
    first = ask("org/good", HF_ENDPOINT=endpoint)
    names = {path.name for path in (tmp_path / "hf").rglob("snapshots/*/**/*")}
    assert names == {"config.json", "model.safetensors", "tokenizer.json"}
    assert first["source"] == "hub:org/good"
    assert first["ready"]
    assert first["installed"] == ["org/good"]
    assert first["done"] >= 300_000
    again = ask("org/good", "remove", HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1")
    assert again["path"] == first["path"]
    assert again["done"] is None
    assert again["freed"] >= 300_000
    assert again["after"] == []
    assert not list((tmp_path / "hf").rglob("*.safetensors"))


def test_a_stopped_fetch_leaves_no_model_and_continues_later(ask, endpoint):
    assert ask("org/good", "stop", HF_ENDPOINT=endpoint) == {"ready": False, "installed": []}
    assert ask("org/good", HF_ENDPOINT=endpoint)["installed"] == ["org/good"]


def test_unusable_repositories_are_refused_with_a_hint(ask, endpoint):
    pickles = ask("org/pickles", HF_ENDPOINT=endpoint)
    assert "only as pickles" in pickles["message"]
    ggufs = ask("org/ggufs", HF_ENDPOINT=endpoint)
    assert ggufs["hint"] == "Pass one of them: org/ggufs/Tiny-Q8_0.gguf"


def test_one_gguf_of_a_repository_is_fetched_converted_and_used_offline(ask, endpoint, converted):
    # The conversion itself has tests in `test_models_convert.py`. Here its result is copied.
    first = ask("org/ggufs/Tiny-Q8_0.gguf", HF_ENDPOINT=endpoint, CONVERTED=str(converted[0].path))
    assert first["source"] == "hub:org/ggufs/Tiny-Q8_0.gguf"
    assert first["installed"] == ["tiny-q8_0"]
    assert first["ready"]
    again = ask("org/ggufs/Tiny-Q8_0.gguf", HF_HUB_OFFLINE="1")
    assert (again["path"], again["done"]) == (first["path"], None)
    assert ask("org/ggufs/other.gguf", HF_ENDPOINT=endpoint)["message"] == "org/ggufs has no such file"


def test_unknown_and_gated_repositories_have_different_errors(ask, endpoint):
    unknown = ask("org/unknown", HF_ENDPOINT=endpoint)
    assert unknown["error"] == "ModelError"
    assert "no model org/unknown" in unknown["message"]
    assert "hf auth login" in ask("org/gated", HF_ENDPOINT=endpoint)["hint"]


def test_an_unreachable_hub_raises_offline(ask):
    answer = ask("org/good", HF_ENDPOINT="http://127.0.0.1:9")
    assert answer["error"] == "Offline"
    assert "--model" in answer["hint"]


def test_offline_mode_raises_offline_and_names_the_variable(ask):
    answer = ask("org/good", HF_HUB_OFFLINE="1")
    assert answer["error"] == "Offline"
    assert "HF_HUB_OFFLINE" in answer["message"]


@pytest.mark.parametrize("names", [[], ["README.md"], ["unet/model.safetensors"]])
def test_a_repository_without_weights_at_its_top_is_refused(names):
    with pytest.raises(ModelError, match=r"no \.safetensors"):
        hub.check_names("org/m", names)
