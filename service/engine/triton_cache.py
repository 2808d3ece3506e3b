"""Triton's cache with what an image brings compiled: `TRITON_CACHE_MANAGER=service.engine.triton_cache:ShippedCache`.

Triton asks a C compiler for one thing, the module through which it speaks to the GPU's driver
(triton/backends/nvidia/driver.py, `CudaUtils`). The CUDA image has it from its build, and so needs no compiler.
"""

from __future__ import annotations

from pathlib import Path

from triton.runtime.cache import FileCacheManager

SHIPPED = Path("/opt/evoquality/triton")


class ShippedCache(FileCacheManager):
    """Looks into the image first, then, and for all that is new, into `TRITON_CACHE_DIR`."""

    def get_file(self, filename: str) -> str | None:
        """The path of a cached file, or None.

        By its name: kernels have their own, and of the keys some depend on where the driver's library lies. The fork
        that vLLM brings for models with MLA (tokenspeed-triton) has a module of that name too; no such model is served.
        """
        shipped = SHIPPED / filename
        return str(shipped) if shipped.exists() else super().get_file(filename)
