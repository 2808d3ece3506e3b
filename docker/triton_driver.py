"""Compiles Triton's driver module into a folder: what Triton would otherwise ask a C compiler for at the first kernel.

    python docker/triton_driver.py /opt/evoquality/triton

It is the only C of Triton 3.7's; kernels go through its own LLVM and ptxas. `service.engine.triton_cache` finds it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from triton import knobs
from triton.backends.nvidia import driver
from triton.runtime.build import compile_module_from_src

[folder] = map(Path, sys.argv[1:])
with tempfile.TemporaryDirectory() as scratch:
    # No GPU's driver is here; only its name is needed to link.
    library = Path(scratch, "libcuda.so.1")
    subprocess.run(["gcc", "-shared", "-Wl,-soname,libcuda.so.1", "-o", library, "-x", "c", os.devnull], check=True)
    knobs.cache.dir = str(Path(scratch, "cache"))
    with contextlib.suppress(ImportError):  # loads beside a GPU only; by then it is in the cache
        compile_module_from_src(
            src=Path(driver.dirname, "driver.c").read_text(),
            name="cuda_utils",
            include_dirs=driver.include_dirs,
            ccflags=[f"-L{scratch}", "-Wl,--no-as-needed", "-l:libcuda.so.1"],
        )
    [module] = Path(scratch, "cache").glob("*/cuda_utils.*.so")
    folder.mkdir(parents=True)
    shutil.copy(module, folder)
