"""The kernels that the CUDA image brings compiled are found before Triton's own cache, and only those."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from triton import knobs
from triton.backends.nvidia import driver
from triton.runtime import build

from service.engine import triton_cache
from service.engine.triton_cache import ShippedCache

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of an image with one module in it; the pod's own cache is empty."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "cuda_utils.so").write_text("compiled with the image")
    monkeypatch.setattr(triton_cache, "SHIPPED", folder)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "own"))
    return folder


def test_a_shipped_module_is_found_without_a_compiler(shipped: Path) -> None:
    assert ShippedCache("KEY").get_file("cuda_utils.so") == str(shipped / "cuda_utils.so")


def test_kernels_go_to_the_pods_own_cache(shipped: Path, tmp_path: Path) -> None:
    cache = ShippedCache("OTHER")
    assert cache.get_file("kernel.cubin") is None
    assert Path(cache.put(b"kernel", "kernel.cubin")).is_relative_to(tmp_path / "own")
    assert Path(cache.get_file("kernel.cubin") or "").read_bytes() == b"kernel"
    assert [file.name for file in shipped.iterdir()] == ["cuda_utils.so"]


def test_triton_takes_it_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_MANAGER", "service.engine.triton_cache:ShippedCache")
    assert knobs.cache.manager_class is ShippedCache


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc, as the image's build does")
def test_what_the_build_compiles_is_what_triton_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "shipped"
    subprocess.run([sys.executable, ROOT / "docker/triton_driver.py", shipped], check=True)
    monkeypatch.setattr(triton_cache, "SHIPPED", shipped)
    monkeypatch.setenv("TRITON_CACHE_MANAGER", "service.engine.triton_cache:ShippedCache")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "own"))
    monkeypatch.setattr(build, "_load_module_from_path", lambda name, path: path)  # no driver is here to load it with
    source = Path(driver.dirname, "driver.c").read_text()
    found = Path(build.compile_module_from_src(source, "cuda_utils", library_dirs=["/where/the/driver/lies"]))
    assert found.parent == shipped
    linked = subprocess.run(["readelf", "--dynamic", found], check=True, capture_output=True, text=True).stdout
    assert "[libcuda.so.1]" in linked
