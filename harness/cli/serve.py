"""``harness serve``: answers requests for predictions over HTTP."""

from __future__ import annotations

import importlib.util
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from harness.api.options import validate
from harness.cli import options
from harness.cli.adapters import read_adapters
from harness.errors import HarnessError

_KEY = "HARNESS_API_KEY"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    model: Annotated[
        str, typer.Argument(help="A run, an export, a folder of save_pretrained or a hub id.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is every network of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 is a free one.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File that holds the API key; it can also be in the variable HARNESS_API_KEY.",
            show_default=False,
        ),
    ] = None,
    adapter: options.Adapters = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Setting of the search, e.g. beams=4, for requests that do not choose; "
            "repeatable.",
            show_default=False,
        ),
    ] = None,
    prefix: options.Prefix = None,
    max_source_length: options.MaxSourceLength = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    decoder: options.Decoder = "harness",
    max_wait_ms: Annotated[
        float,
        typer.Option(
            min=0, help="Longest wait for others to share a batch, while the model is idle."
        ),
    ] = 10.0,
    plugin: options.PluginFiles = None,
    batch_tokens: options.BatchTokens = None,
    max_texts: Annotated[int, typer.Option(min=1, help="Most texts of a request.")] = 64,
    max_characters: Annotated[
        int, typer.Option(min=1, help="Most characters of a request.")
    ] = 100_000,
    max_queue: Annotated[int, typer.Option(min=1, help="Most texts that wait.")] = 512,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Longest time of a request in seconds.")
    ] = 60.0,
    max_beams: Annotated[
        int, typer.Option(min=1, help="Most beams that a request may ask for.")
    ] = 16,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Longest prediction that a request may ask for, in tokens.")
    ] = 512,
) -> None:
    """Serve a model over HTTP, with a page to try it in a browser.

    Requests that arrive together share batches. Ctrl-C or SIGTERM ends the server once it has
    answered all requests that it accepted. Its log holds no texts. Example: harness serve
    results/RUN, then open http://127.0.0.1:8000
    """
    _check_packages()
    from harness.serving.limits import Limits
    from harness.serving.server import bind, log_to_stderr
    from harness.spec.decoding import DecodingSettings
    from harness.spec.run_spec import parse_settings

    key = _read_key(api_key_file)
    adapters = read_adapters(adapter or [])
    search = parse_settings(settings or [])
    validate(DecodingSettings, search, "The search")
    bound = bind(host, port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"

    from harness.generation.batch_predictor import BATCH_TOKENS
    from harness.generation.loading import load_text_model
    from harness.serving.app import create_app
    from harness.serving.server import Server
    from harness.serving.service import Service
    from harness.training.resolved_run import choose_device

    typer.echo(f"Loading {model} ...", err=True)
    text_model = load_text_model(
        model,
        device=device,
        precision=precision,
        decoder=decoder,
        adapters=adapters,
        settings=search,
        prefix=prefix,
        max_source_length=max_source_length,
    )
    limits = Limits(
        max_wait_ms=max_wait_ms,
        batch_tokens=batch_tokens or BATCH_TOKENS[choose_device(device).type],
        max_texts=max_texts,
        max_characters=max_characters,
        max_queue=max_queue,
        timeout=timeout,
        max_beams=max_beams,
        max_new_tokens=max_new_tokens,
    )
    log_to_stderr()
    with Service(text_model, limits) as service:
        server = Server(create_app(service, key), service)
        for line in _instructions(address, host, has_key=key is not None):
            typer.echo(line, err=True)
        server.run(sockets=[bound])
    typer.echo("The server has ended; every request that it accepted is answered.", err=True)


def _check_packages() -> None:
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            raise HarnessError(
                f"The server needs the package {package.replace('_', '-')}.",
                "Install it: pip install 'seq2seq-harness[serve]'",
            )


def _read_key(file: Path | None) -> str | None:
    """Return the API key from a file or the environment; None if there is none."""
    if file is None:
        key, place = os.environ.get(_KEY), f"The variable {_KEY}"
        if key is None:
            return None
    else:
        place = f"The file {str(file)!r}"
        try:
            key = file.expanduser().read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise HarnessError(
                f"The API key cannot be read from {str(file)!r}: {reason}.",
                "Write a key into it: openssl rand -hex 32 > FILE",
            ) from error
    key = key.strip()
    # Headers hold nothing else.
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise HarnessError(
            f"{place} holds no usable API key.",
            "A key is one line of ASCII characters without blanks: openssl rand -hex 32 > FILE",
        )
    return key


def _instructions(address: str, host: str, *, has_key: bool) -> Iterable[str]:
    """Yield lines that say how to use the server."""
    if host not in _LOOPBACK and not has_key:
        yield (
            f"Warning: everybody who reaches {host} can use this server, since it has no API key. "
            "Set one: --api-key-file FILE"
        )
    yield f"Serving on {address} (Ctrl-C ends it). Try it in a browser, or:"
    words = ["curl", f"{address}/generate", "-H", "Content-Type: application/json"]
    words += ["-d", '{"inputs": "A source text"}']
    key = f' -H "Authorization: Bearer ${_KEY}"' if has_key else ""
    yield f"  {shlex.join(words[:2])}{key} {shlex.join(words[2:])}"
