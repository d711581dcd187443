"""Pushing an export: against a server that answers as the hub does."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import Result

from harness import export_run, push
from harness.errors import HarnessError
from harness.export.manifest import ExportCheck, Manifest
from harness.export.rebuild_base import weights_hash
from harness.spec.decoding import DecodingSettings

TOKEN = "hf_of_the_test"


class LocalHub(ThreadingHTTPServer):
    """The hub's HTTP interface, with large files by Git LFS; it keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.requests: list[str] = []
        self.visibility: dict[str, str] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.writable = {"ann"}
        self.lost: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> LocalHub:
        return cast(LocalHub, self.server)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base.
        pass

    def do_GET(self) -> None:
        self._take()
        if not self._allowed():
            return
        if self.path == "/api/whoami-v2":
            self._answer({"name": "ann", "type": "user"})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/?]+)(\?.*)?", self.path):
            self._describe(match[1])
        else:
            self._answer({"error": "not known here"}, 404)

    def do_PUT(self) -> None:
        body = self._take()
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.objects[oid] = body
        self._answer({})

    def do_POST(self) -> None:
        body = self._take()
        if not self._allowed():
            return
        if self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": modes})
        elif self.path.endswith(".git/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            href = f"{self.hub.url}/lfs/"
            objects = [
                {**entry, "actions": {"upload": {"href": href + entry["oid"]}}} for entry in wanted
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
            self._commit(match[1], [json.loads(line) for line in body.splitlines()])
        else:
            self._answer({"error": "not known here"}, 404)

    def _take(self) -> bytes:
        self.hub.requests.append(f"{self.command} {self.path}")
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _allowed(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._answer({"error": "Invalid credentials in Authorization header"}, 401)
        return False

    def _create(self, request: dict[str, Any]) -> None:
        if request["organization"] not in self.hub.writable:
            message = f"You don't have the rights to create a model under {request['organization']}"
            self._answer({"error": message}, 403)
            return
        name = f"{request['organization']}/{request['name']}"
        self.hub.visibility[name] = request["visibility"]
        self.hub.files[name] = {".gitattributes": b"*.safetensors filter=lfs\n"}
        self._answer({"url": f"{self.hub.url}/{name}", "name": name})

    def _describe(self, name: str) -> None:
        if name not in self.hub.files:
            self._answer({"error": "Repository not found"}, 404, code="RepoNotFound")
            return
        files = [
            {"rfilename": path, "size": len(content)}
            for path, content in self.hub.files[name].items()
        ]
        private = self.hub.visibility[name] == "private"
        self._answer({"id": name, "private": private, "siblings": files, "tags": []})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                assert value["encoding"] == "base64"
                content = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content = self.hub.objects[value["oid"]]
            else:
                continue
            if value["path"] not in self.hub.lost:
                self.hub.files[name][value["path"]] = content
        oid = "c0" * 20
        url = f"{self.hub.url}/{name}/commit/{oid}"
        self._answer({"commitUrl": url, "commitOid": oid, "success": True})

    def _answer(self, values: object, status: int = 200, code: str | None = None) -> None:
        body = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    server = LocalHub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command in a process of its own: the hub's client reads its settings once."""

    def run(
        *arguments: object, url: str, token: str | None = TOKEN, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        inherited = {n: v for n, v in os.environ.items() if not n.startswith(("HF_", "HUGGING"))}
        settings = {
            "HF_ENDPOINT": url,
            "HF_HOME": str(tmp_path / "home"),
            # The hub's other protocol of large files cannot be imitated in a few lines.
            "HF_HUB_DISABLE_XET": "1",
            **({} if token is None else {"HF_TOKEN": token}),
            **variables,
        }
        words = [sys.executable, "-m", "harness", "push", *map(str, arguments)]
        environment = {**inherited, **settings}
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def model(tmp_path: Path, tiny_t5: Path) -> Path:
    """An exported folder: a tiny model as transformers saves it, with a card and a manifest."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder = tmp_path / "model"
    AutoModelForSeq2SeqLM.from_pretrained(tiny_t5).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_t5).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlibrary_name: transformers\n---\n\n# A model\n")
    describe(folder)
    return folder


def describe(folder: Path, **changes: Any) -> None:
    """Write the manifest of a folder."""
    check = ExportCheck(
        examples=20,
        equal_predictions=20,
        least_equal=20,
        reference="the predictions that the run stored",
        equal_to_stored=20,
        largest_difference=1e-6,
        limit=1e-4,
        compared="logits",
    )
    values = {
        "form": "merged",
        "run": "tiny-full-notes-s0-0123abcd",
        "backbone": "tiny",
        "recipe": "full",
        "task": "notes",
        "prefix": "summarize: ",
        "max_source_length": 64,
        "decoding": DecodingSettings(),
        "dtype": "float32",
        "weights_sha256": weights_hash(folder),
        "check": check,
        **changes,
    }
    (folder / "harness.json").write_text(Manifest.model_validate(values).model_dump_json())


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_dry_run_lists_the_files_and_sends_nothing(
    model: Path, hub: LocalHub, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    result = command(model, "ann/model", url=hub.url)

    assert result.returncode == 0, result.stderr
    for name in contents(model):
        assert name in result.stdout
    assert "Nothing was sent" in result.stdout
    assert "private repository ann/model" in result.stdout
    assert hub.requests == []


def test_the_hub_has_the_bytes_of_the_folder_in_a_private_repository(
    model: Path, hub: LocalHub, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    result = command(model, "ann/model", "--yes", "--json", url=hub.url)

    assert result.returncode == 0, result.stderr
    values = json.loads(result.stdout)
    assert values["uploaded"] is True
    assert values["url"].startswith(f"{hub.url}/ann/model/commit/")
    assert hub.visibility == {"ann/model": "private"}
    arrived = {name: data for name, data in hub.files["ann/model"].items() if name[0] != "."}
    assert arrived == contents(model)
    assert any(request.startswith("PUT /lfs/") for request in hub.requests)
    assert TOKEN not in result.stdout + result.stderr


def test_a_second_push_names_the_files_that_stay(
    model: Path, hub: LocalHub, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    hub.visibility["ann/model"] = "private"
    hub.files["ann/model"] = {"adapter_config.json": b"{}", "config.json": b"old"}

    result = command(model, "ann/model", "--yes", url=hub.url)

    assert result.returncode == 0, result.stderr
    assert "POST /api/repos/create" not in hub.requests
    assert hub.files["ann/model"]["config.json"] == (model / "config.json").read_bytes()
    assert "Other files that stay there: adapter_config.json" in result.stdout


@pytest.mark.parametrize(
    ("visibility", "options", "words"),
    [
        ("public", [], "is public, not private; nothing was sent"),
        ("private", ["--public"], "is private, not public; nothing was sent"),
    ],
)
def test_nothing_goes_to_a_repository_of_another_visibility(
    model: Path,
    hub: LocalHub,
    command: Callable[..., subprocess.CompletedProcess[str]],
    visibility: str,
    options: list[str],
    words: str,
) -> None:
    hub.visibility["ann/model"] = visibility
    hub.files["ann/model"] = {}

    result = command(model, "ann/model", "--yes", *options, url=hub.url)

    assert result.returncode == 2
    assert words in result.stderr
    assert hub.files["ann/model"] == {}
    assert not hub.objects


def test_public_creates_a_public_repository(
    model: Path, hub: LocalHub, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    result = command(model, "ann/model", "--yes", "--public", url=hub.url)

    assert result.returncode == 0, result.stderr
    assert hub.visibility == {"ann/model": "public"}


def test_a_file_that_did_not_arrive_is_an_error(
    model: Path, hub: LocalHub, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    hub.lost = {"tokenizer.json"}

    result = command(model, "ann/model", "--yes", url=hub.url)

    assert result.returncode == 2
    assert "did not arrive whole at ann/model: tokenizer.json" in result.stderr


@pytest.mark.parametrize(
    ("repository", "changes", "words"),
    [
        ("ann/model", {"token": None}, "There is no access token"),
        ("ann/model", {"token": "hf_wrong"}, "the hub answers 401"),
        ("bob/model", {}, "You don't have the rights to create a model under bob"),
        ("ann/model", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE forbids"),
        ("ann/model", {"url": "http://127.0.0.1:9"}, "Look whether this machine reaches the hub"),
    ],
)
def test_the_hubs_refusals_are_errors_with_a_hint(
    model: Path,
    hub: LocalHub,
    command: Callable[..., subprocess.CompletedProcess[str]],
    repository: str,
    changes: dict[str, Any],
    words: str,
) -> None:
    result = command(model, repository, "--yes", **{"url": hub.url, **changes})

    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert not hub.objects


def test_a_folder_without_manifest_or_card_is_pushed_on_request_only(model: Path) -> None:
    (model / "harness.json").unlink()
    (model / "README.md").unlink()

    with pytest.raises(HarnessError, match=r"no harness\.json and no README\.md"):
        push(model, "ann/model")

    result = push(model, "ann/model", any_folder=True)
    assert set(result.files) == set(contents(model))
    assert "no manifest" in result.notes[0]


def test_weights_changed_after_the_check_are_refused(model: Path) -> None:
    path = model / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    with pytest.raises(HarnessError, match="not those that the export checked"):
        push(model, "ann/model")


def test_a_card_with_examples_is_pushed_on_request_only(model: Path) -> None:
    with (model / "README.md").open("a") as card:
        card.write("\n## Examples of the test split\n\n- Source: a patient\n")

    with pytest.raises(HarnessError, match="quotes examples") as error:
        push(model, "ann/model")

    assert "a patient" not in str(error.value)
    assert push(model, "ann/model", examples=True).uploaded is False


def test_other_files_and_links_that_leave_the_folder_are_named(model: Path, notes: Path) -> None:
    (model / "optimizer.pt").write_bytes(b"")
    (model / ".env").write_text("SECRET=1")
    (model / "notes.txt").symlink_to(notes)
    (model / "more").symlink_to(notes.parent)
    (model / "again.json").symlink_to("config.json")

    with pytest.raises(HarnessError) as error:
        push(model, "ann/model")

    for refused in (
        "optimizer.pt (*.pt",
        ".env (hidden",
        "notes.txt (a link that leaves",
        "more (a link that leaves",
    ):
        assert refused in error.value.message
    assert "again.json" not in error.value.message


def test_a_base_elsewhere_is_noted(model: Path) -> None:
    describe(model, form="adapter", base="../base", base_sha256="ab" * 32)

    (note,) = push(model, "ann/model").notes

    assert "../base is not in this folder" in note


def test_a_model_of_ctranslate2_has_a_file_of_its_own_kind(model: Path) -> None:
    (model / "model.bin").write_bytes(b"weights")
    with pytest.raises(HarnessError, match=r"model\.bin"):
        push(model, "ann/model")

    (model / "model.safetensors").unlink()
    describe(model, form="ctranslate2", weights_sha256="ab" * 32)

    assert "model.bin" in push(model, "ann/model").files


@pytest.mark.parametrize(
    ("form", "options", "expected"),
    [
        ("merged", {}, {"model.safetensors", "tokenizer.json", "generation_config.json"}),
        ("adapter", {}, {"adapter_model.safetensors", "base/model.safetensors"}),
        ("adapter", {"rebuild": True}, {"adapter_model.safetensors", "rebuild_base.py"}),
        ("ctranslate2", {}, {"model.bin", "tokenizer.json"}),
    ],
)
def test_every_form_of_an_export_can_be_pushed(
    form: Any,
    options: dict[str, Any],
    expected: set[str],
    make_run: Callable[..., Path],
    tmp_path: Path,
) -> None:
    if form == "ctranslate2":
        pytest.importorskip("ctranslate2")
    recipe = "lora_ff+lprun" if form == "adapter" else "lprun"
    folder = export_run(make_run("t5", recipe), tmp_path / "out", form=form, **options)

    result = push(folder, "ann/model")

    assert expected | {"harness.json", "README.md"} <= set(result.files)
    assert set(result.files) == set(contents(folder))
    assert result.notes == (
        ["The adapter's base is not in this folder: rebuild_base.py makes it."] if options else []
    )


def test_examples_that_an_export_quotes_are_found(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = make_run("t5", "lprun")
    folder = export_run(run, tmp_path / "out", examples_in_card=True)

    with pytest.raises(HarnessError, match="quotes examples"):
        push(folder, "ann/model")


@pytest.mark.parametrize("name", ["model", "ann/", "ann/mo del", "ann/../model", "a/b/c", "-a/b"])
def test_a_wrong_name_is_an_error_before_anything_is_sent(model: Path, name: str) -> None:
    with pytest.raises(HarnessError, match="not the name of a repository"):
        push(model, name)


def test_a_missing_folder_says_how_to_write_one(
    harness: Callable[..., Result], tmp_path: Path
) -> None:
    result = harness("push", str(tmp_path / "none"), "ann/model")

    assert result.exit_code == 2
    assert "harness export RUN --out FOLDER" in result.output
