"""Child process: compiles the kernels of biased attention for GPUs, which needs none.

Prints a line of JSON for each kernel, GPU and configuration: bytes of shared memory and spills.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from harness.training.engines import biased_kernels as kernels
from harness.training.engines.biased_attention import _LAUNCH, sizes_of

POINTERS = {
    "table": "fp32",
    "offsets": "i32",
    "seed": "i64",
    "normaliser": "fp32",
    "delta": "fp32",
    "grad_table": "fp32",
}
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
NAMES = ("forward_kernel", "delta_kernel", "query_kernel", "key_kernel")


def compiled(name: str, capability: int, dtype: str, options: dict[str, Any]) -> dict[str, Any]:
    function = getattr(kernels, name)
    signature, constants = {}, {}
    for argument in function.arg_names:
        if argument in options:
            signature[argument], constants[argument] = "constexpr", options[argument]
        elif argument in ("longest", "heads") or argument.endswith(("_stride", "_head")):
            signature[argument] = "i32"
        elif argument in ("scale", "p"):
            signature[argument] = "fp32"
        else:
            signature[argument] = f"*{POINTERS.get(argument, dtype)}"
    used = {k: v for k, v in constants.items() if k in function.arg_names}
    # Pointers and strides are multiples of 16, as they are at run time.
    aligned = {
        (number,): [["tt.divisibility", 16]]
        for number, argument in enumerate(function.arg_names)
        if signature[argument].startswith("*") or argument.endswith(("_stride", "_head"))
    }
    source = ASTSource(function, signature, used, aligned)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=_LAUNCH)
    return {
        "shared": made.metadata.shared,
        "ptx": len(made.asm["ptx"]),
        "cubin": len(made.asm["cubin"]),
    }


def main() -> None:
    """Compile each kernel; with ``all``, for both GPUs and all configurations."""
    every = "all" in sys.argv
    for capability in (80, 90) if every else (90,):
        for dtype in ("bf16", "fp32") if every else ("bf16",):
            for width in (64, 128) if every else (64,):
                for causal in (False, True) if every else (True,):
                    sizes = sizes_of(width, DTYPES[dtype])
                    options = {**sizes, "causal": causal, "drops": True, "trains": True}
                    for name in NAMES:
                        found = compiled(name, capability, dtype, options)
                        case = f"{name} sm_{capability} {dtype} {width} {causal}"
                        sys.stdout.write(json.dumps({"case": case, "found": found}) + "\n")


if __name__ == "__main__":
    main()
