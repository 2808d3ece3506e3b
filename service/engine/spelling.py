"""How a model's tokenizer spells answers: a token a digit, and what an answer can end with."""

from __future__ import annotations

from functools import cache
from typing import Any

from service.engine.protocol import END
from service.errors import NotSpelled
from service.prompts import Profile

SPELLED = "3.42"
_MOST_BLANKS, _MOST_OTHERS = 20, 80
"""Tokens that stand for END; vLLM gives the probabilities of 128 tokens at most. The first ones are the commonest."""


class Spelling:
    """The ids of texts and tokens, by a tokenizer of transformers."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.ids, self.token = cache(self._ids), cache(self._token)

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _token(self, token: str, profile: Profile) -> list[int]:
        """The ids of a token's text, or of END.

        Raises NotSpelled if scores are not spelled digit by digit, or merge with what stands around an answer.
        """
        if token == END:
            return self._ends(profile.closing) if profile.closing else [self._tokenizer.eos_token_id]
        digits, alone = self.ids(SPELLED), [*self.ids(profile.opening), *self.ids(SPELLED)]
        apart = self.ids(profile.opening + SPELLED + profile.closing)[: len(alone)] == alone
        if len(self.ids(token)) != 1 or len(digits) != len(SPELLED) or not apart:
            raise NotSpelled("mode=expected needs a tokenizer with one token per digit; use mode=sampled.")
        return self.ids(token)

    def _ends(self, closing: str) -> list[int]:
        """The tokens that a closing can begin with, or go on behind, with space before it or without."""
        special = set(self._tokenizer.all_special_ids)
        texts = {one: self._tokenizer.decode([one]) for one in range(len(self._tokenizer)) if one not in special}
        blanks = [one for one, text in texts.items() if text and text.isspace()]
        begun = ((one, text.lstrip()) for one, text in texts.items())
        others = [one for one, text in begun if text and (closing.startswith(text) or text.startswith(closing))]
        return blanks[:_MOST_BLANKS] + others[:_MOST_OTHERS]
