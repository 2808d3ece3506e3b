"""Where the service is. All settings are flags of `evoquality-trainer`, or variables `EVOQUALITY_TRAINER_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
CONFIG = SettingsConfigDict(
    env_prefix="EVOQUALITY_TRAINER_", extra="forbid", use_attribute_docstrings=True, cli_kebab_case=True
)


class ServiceSettings(BaseSettings):
    """Where the service is."""

    model_config = CONFIG

    operator: str = "http://127.0.0.1:8001"
    """Address of the service's operators' and internal routes. Of several replicas on one store: separated by commas;
    votes and rollouts are spread over those that answer, and a promotion goes to all."""
    store: Path = Path("store")
    """The version store, on the volume that service and trainer share."""
    operator_key_file: Path | None = None
    """File with the operators' key. Default: operator.key in the store."""

    @property
    def operators(self) -> list[str]:
        """The replicas' addresses."""
        return [url.strip() for url in self.operator.split(",") if url.strip()]

    def operator_key(self) -> str:
        """The operators' key. Raises ValueError if its file cannot be read."""
        file = self.operator_key_file or self.store / "operator.key"
        try:
            return file.read_text().strip()
        except OSError:
            raise ValueError(
                f"the operators' key {file} cannot be read; --store must be the running service's store, "
                "or name the key's file with --operator-key-file"
            ) from None
