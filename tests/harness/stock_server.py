"""A process that has imported stock libraries, and forks itself to execute programs.

It is started as ``python -P stock_server.py``. For each line of JSON, the path of a program and its
arguments, it writes a line of JSON: the exit status and what the program wrote to stderr.
"""

import contextlib
import json
import os
import runpy
import sys
import tempfile
import traceback

import peft  # noqa: F401
import torch  # noqa: F401
import transformers.generation
import transformers.models.bart.modeling_bart
import transformers.models.t5.modeling_t5  # noqa: F401

with contextlib.suppress(ImportError):
    import ctranslate2  # noqa: F401


def execute(program: str, arguments: list[str]) -> int:
    """Execute a program as the interpreter does, and return its exit status."""
    sys.argv = [program, *arguments]
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


for line in sys.stdin:
    program, *arguments = json.loads(line)
    with tempfile.TemporaryFile() as written:
        child = os.fork()
        if not child:
            for stream in (1, 2):
                os.dup2(written.fileno(), stream)
            status = execute(program, arguments)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        written.seek(0)
        sys.stdout.write(json.dumps([status, written.read().decode()]) + "\n")
        sys.stdout.flush()
