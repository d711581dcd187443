"""Child process: compiles the kernels of biased attention for GPUs, which needs none.

Prints a line of JSON for each kernel, GPU and configuration: bytes of shared memory, and bytes of
the stack, to which registers are spilled.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from harness.training.engines import biased_kernels as kernels
from harness.training.engines.biased_launches import sizes

NAMES = ("forward_kernel", "query_kernel", "key_kernel")
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
TYPES = {
    **dict.fromkeys(("table", "normaliser", "delta", "grad_table"), "*fp32"),
    **dict.fromkeys(("longest", "heads", "sequences", "tokens", "threshold"), "i32"),
    **dict.fromkeys(("scale", "factor"), "fp32"),
    "offsets": "*i32",
    "seed": "*i64",
}
ANY_ADDRESS = ("table", "offsets", "seed")


def compiled(name: str, capability: int, dtype: str, width: int, **flags: bool) -> dict[str, int]:
    function = getattr(kernels, name)
    constants: dict[str, Any] = {**sizes(width, DTYPES[dtype]), **flags}
    launch = {key: constants.pop(key) for key in ("num_warps", "num_stages")}
    signature, aligned = {}, {}
    for number, argument in enumerate(function.arg_names):
        is_stride = argument.endswith(("_stride", "_head"))
        default = "constexpr" if argument in constants else "i32" if is_stride else f"*{dtype}"
        signature[argument] = TYPES.get(argument, default)
        # Strides and addresses of large tensors are multiples of 16, as they are at run time.
        if is_stride or (signature[argument].startswith("*") and argument not in ANY_ADDRESS):
            aligned[number,] = [["tt.divisibility", 16]]
    used = {key: value for key, value in constants.items() if key in signature}
    source = ASTSource(function, signature, used, aligned)
    target = GPUTarget("cuda", capability, 32)
    made = triton.compile(source, target=target, options=launch)
    return {"shared": made.metadata.shared, "stack": stack(made.asm["cubin"])}


def stack(cubin: bytes) -> int:
    """Return the bytes of the stack that a thread of the kernel uses."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "-res-usage", file.name]
        printed = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.findall(r"REG:\d+ STACK:(\d+)", printed.stdout + printed.stderr)
    assert len(found) == 1, printed
    return int(found[0])


def main() -> None:
    """Compile each kernel for training; with ``all``, in all configurations."""
    every = "all" in sys.argv
    both = (False, True) if every else (True,)
    dtypes, widths = (DTYPES, (16, 64, 128)) if every else (("bf16",), (64,))
    for capability, dtype, width, causal in product((80, 90), dtypes, widths, both):
        for name in NAMES:
            for trained in both if name == "query_kernel" else (False,):
                case = f"{name} sm_{capability} {dtype} {width} {causal} {trained}"
                flags = {"causal": causal, "drops": True, "trained": trained}
                found = compiled(name, capability, dtype, width, **flags)
                sys.stdout.write(json.dumps({"case": case, "found": found}) + "\n")


if __name__ == "__main__":
    main()
