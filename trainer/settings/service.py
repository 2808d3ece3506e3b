"""The service's address and the votes that it is asked for.

All settings are flags of `evoquality-trainer`, or variables `EVOQUALITY_TRAINER_*`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, CliImplicitFlag, SettingsConfigDict

from service.files import read_key
from trainer.errors import UserError

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
CONFIG = SettingsConfigDict(
    env_prefix="EVOQUALITY_TRAINER_", extra="forbid", use_attribute_docstrings=True, cli_kebab_case=True
)


class ServiceSettings(BaseSettings):
    """The service's addresses."""

    model_config = CONFIG

    operator: str = "http://127.0.0.1:8001"
    """Address of the service's operators' and internal routes. Of several replicas on one store: separated by commas;
    questions are spread over those that answer, and a promotion goes to all."""
    store: Path = Path("store")
    """The version store, on the volume that service and trainer share."""
    operator_key_file: Path | None = None
    """File with the operators' key. Default: operator.key in the store."""

    @property
    def operators(self) -> list[str]:
        """The replicas' addresses."""
        return [url.strip() for url in self.operator.split(",") if url.strip()]

    def operator_key(self) -> str:
        """The operators' key.

        Raises:
            UserError: its file cannot be read.
        """
        file = self.operator_key_file or self.store / "operator.key"
        try:
            return read_key(file)
        except OSError as error:
            raise UserError(
                f"the operators' key {file} cannot be read ({error.strerror}); --store must be the running service's "
                "store, or name the key's file with --operator-key-file"
            ) from error


_MOST_IN_ONE_ORDER = 64


class VoteSettings(ServiceSettings):
    """The votes on pairs."""

    seed: int = Field(default=0, ge=0)
    """Seed of every random choice."""
    patience: float = Field(default=300, ge=0)
    """Seconds to wait for a service that does not answer, is busy or restarts, before the trainer exits with 3."""
    votes_by: Literal["auto", "exact", "samples"] = "auto"
    """Votes on pairs: the model's exact probabilities (if it thinks, behind sampled thoughts), or sampled votes. auto:
    exact if the model supports it."""
    votes: int = Field(default=32, ge=1, le=128)
    """K of the offline stage: sampled votes or thoughts a pair at most, half of them in each order (the paper: 32).
    With an odd K one order, drawn for each pair, gets one vote more; thoughts are always as many in both."""
    permute: CliImplicitFlag[bool] = True
    """Ask about a pair in both orders alike. Without (an ablation): only in the order of the images' digests, which
    leaves the model's position bias in the labels."""
    tie_margin: Share = 0.3
    """Exact votes of a model that does not think: pairs whose two sides differ by less than this (0.3: 65 to 35 %) are
    ties, p* = 0.5, as counts of close pairs often are. With 0 every pair has a winner: round 2 of the demo then
    separated images that the model cannot distinguish, and lost a part of round 1's gain."""
    vote_error: Share = 0.06
    """Sampled votes on a pair stop once their majority differs from that of all K with at most this probability;
    0 continues while any vote could change it. Thoughts stop likewise, by their label."""
    vote_temperature: float = Field(default=0.5, gt=0, le=2)
    """Temperature of sampled votes and of thoughts. 0.5 was chosen on the embedded model. If a model answers readably
    and without thinking, the majority of infinitely many votes is the same at any temperature, and below 1 fewer votes
    find it."""

    max_answer_tokens: int | None = Field(default=None, ge=8)
    """Longest answer in tokens, thought included, of a model that thinks, in votes and in training. Default: the
    service's own. It must fit into the service's max_model_len beside the question and its pictures."""

    @property
    def stopping_error(self) -> float | None:
        """The probability of a change at which sampled votes stop; None: all K are drawn."""
        return self.vote_error

    @model_validator(mode="after")
    def _asks_one_order_no_more_than_the_service_answers(self) -> VoteSettings:
        if self.votes > _MOST_IN_ONE_ORDER and not self.permute:
            raise ValueError(
                f"--no-permute asks about a pair in one order, at most {_MOST_IN_ONE_ORDER} times; "
                "give a smaller --votes"
            )
        return self
