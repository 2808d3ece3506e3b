"""A Triton cache with modules from the image: `TRITON_CACHE_MANAGER=service.engine.triton_cache:ShippedCache`.

Triton needs a C compiler for one module only, its interface to the GPU's driver (triton/backends/nvidia/driver.py,
`CudaUtils`). The CUDA image contains that module, and so needs no compiler.
"""

from __future__ import annotations

from pathlib import Path

from triton.runtime.cache import FileCacheManager

SHIPPED = Path("/opt/evoquality/triton")


class ShippedCache(FileCacheManager):
    """Looks into the image first, then into `TRITON_CACHE_DIR`, where new entries go."""

    def get_file(self, filename: str) -> str | None:
        """The path of a cached file, or None.

        Looks up the name only, since some keys depend on the path of the driver's library; kernels have other names.
        The fork that vLLM brings for models with MLA (tokenspeed-triton) has a module of the same name, but no such
        model is served.
        """
        shipped = SHIPPED / filename
        return str(shipped) if shipped.exists() else super().get_file(filename)
