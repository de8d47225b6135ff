"""`ip.load("org/name")` fetches from a hub over HTTP: a small one stands on this machine, and serves real files."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import interpose as ip

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROGRAM = """
import json, sys, warnings
warnings.simplefilter("error")
import torch, interpose as ip
try:
    model = ip.load(sys.argv[1])
except ip.errors.LoadError as error:
    print(json.dumps({"error": str(error)}))
else:
    with model.trace(torch.tensor([[5, 6, 7, 8]])):
        logits = model.logits[0, -1].save()
    print(json.dumps({"logits": logits.tolist(), "source": model.info.source, "name": model.info.name}))
"""


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of a hub: what there is, and files by revision with their hashes."""

    folder: ClassVar[Path]
    fetched: ClassVar[list[str]]

    def do_HEAD(self) -> None:
        self._answer(send=False)

    def do_GET(self) -> None:
        self._answer(send=True)

    def _answer(self, send: bool) -> None:
        path = self.path.partition("?")[0]
        found = self.folder / path.rpartition("/")[2]
        if path.startswith("/api/models/tiny/llama/tree/"):
            # /tree/REVISION is the root; anything below it is a folder that is not there.
            files = sorted(self.folder.iterdir()) if path.count("/") == 6 else []
            listed = [{"type": "file", "path": f.name, "oid": COMMIT, "size": f.stat().st_size} for f in files]
            self._send(json.dumps(listed).encode(), send)
        elif path.startswith("/api/models/tiny/llama"):
            names = [{"rfilename": each.name} for each in sorted(self.folder.iterdir())]
            self._send(json.dumps({"id": "tiny/llama", "sha": COMMIT, "siblings": names}).encode(), send)
        elif path.startswith("/tiny/llama/resolve/") and found.is_file():
            if send:
                self.fetched.append(found.name)
            self._send(found.read_bytes(), send)
        else:
            missing = "EntryNotFound" if path.startswith("/tiny/llama/") else "RepoNotFound"
            self.send_response(404)
            self.send_header("X-Error-Code", missing)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send(self, data: bytes, send: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if send:
            self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[str, ip.Model]]:
    """The address of a hub that has one model, and that model."""
    torch.manual_seed(0)
    model = ip.build("llama", layers=2, width=16, heads=2, neurons=24, vocab=40, pad_token_id=0)
    folder = tmp_path / "served"
    model.network.save_pretrained(folder)  # type: ignore[operator]
    vocab = {f"w{i}": i for i in range(40)}
    words = {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"}
    blank = dict.fromkeys(["truncation", "padding", "normalizer", "post_processor", "decoder"])
    tokenizer = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": words, **blank}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    Hub.folder, Hub.fetched = folder, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", model
    server.shutdown()
    server.server_close()


def load(address: str, home: Path, name: str) -> dict[str, Any]:
    away = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    away |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "*", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", PROGRAM, name]
    done = subprocess.run(command, env={**os.environ, **away}, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_model_is_fetched_from_a_hub_once(hub: tuple[str, ip.Model], tmp_path: Path) -> None:
    address, model = hub
    with model.trace(torch.tensor([[5, 6, 7, 8]])):
        logits = model.logits[0, -1].save()
    found = load(address, tmp_path / "home", "tiny/llama")
    assert found.get("name") == "tiny/llama", found
    assert found["source"] == "hub"
    assert torch.allclose(torch.tensor(found["logits"]), logits, atol=1e-6)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(Hub.fetched)
    assert Hub.fetched.count("model.safetensors") == 1
    again = load(address, tmp_path / "home", "tiny/llama")
    assert again == found
    assert Hub.fetched.count("model.safetensors") == 1
    assert "tiny/other could not be loaded" in load(address, tmp_path / "home", "tiny/other")["error"]
