"""The package's extras: named in one sentence before any work begins, if one is missing.

Imports only the standard library, so that every command can check what it needs.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec

from service.errors import UserError

_MODULES = {
    "serve": ("fastapi", "filelock", "limits", "numpy", "pebble", "pydantic_settings", "uvicorn"),
    "cpu": ("vllm",),
    "trainer": (
        "anyio",
        "filelock",
        "pandas",
        "peft",
        "pydantic_settings",
        "scipy",
        "skimage",
        "statsmodels",
        "torch",
        "transformers",
    ),
    "heif": ("pillow_heif",),
    "mlflow": ("mlflow",),
    "otel": ("opentelemetry.sdk", "opentelemetry.instrumentation.fastapi"),
    "parquet": ("pyarrow",),
}
_HINTS = {"cpu": " (or [gpu])"}


def require(extra: str, what: str) -> None:
    """Raises UserError unless the extra is installed. `what` needs it, for example "serve" or "--mlflow"."""
    if not is_installed(extra):
        hint = _HINTS.get(extra, "")
        raise UserError(f"{what} needs the extra `{extra}`: pip install 'evoquality-service[{extra}]'{hint}")


def has_gpu_engine() -> bool:
    """True if vLLM's build for GPUs is installed; that for CPUs has another name."""
    try:
        return bool(distribution("vllm"))
    except PackageNotFoundError:
        return False


def is_installed(extra: str) -> bool:
    """True if the extra is installed."""
    return all(map(_is_found, _MODULES[extra]))


def _is_found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False
