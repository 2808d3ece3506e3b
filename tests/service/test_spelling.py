"""How answers are spelled in tokens: by tokenizers that keep digits apart, and by others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from service.engine.protocol import END
from service.engine.spelling import Spelling
from service.errors import NotSpelled
from service.prompts import PROFILES

DIGIT_BY_DIGIT = r"\d|[^\r\n\p{L}\d]?\p{L}+| ?[^\s\p{L}\d]+[\r\n]*|\s+"
"""As Qwen2.5's pattern in what matters here."""
WORDS = (r"\boxed", "</", "answer", "}\n", "}.", " }", ">\n", "</b", "{3", "3.42")


def tokenizer(pattern: str, words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE that knows letters and some words."""
    vocabulary: dict[str, int] = {"<|im_end|>": 0}
    merges: list[tuple[str, str]] = []
    for letter in pre_tokenizers.ByteLevel.alphabet():
        vocabulary[letter] = len(vocabulary)
    for word in words:
        spelled = word.replace(" ", "Ġ").replace("\n", "Ċ")
        piece = spelled[0]
        for letter in spelled[1:]:
            if (piece, letter) not in merges:
                merges.append((piece, letter))
                vocabulary.setdefault(piece + letter, len(vocabulary))
            piece += letter
    made = Tokenizer(models.BPE(vocabulary, merges))
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>")


@pytest.fixture(scope="module")
def digits() -> PreTrainedTokenizerFast:
    return tokenizer(DIGIT_BY_DIGIT, WORDS)


def texts(made: PreTrainedTokenizerFast, ids: Sequence[int]) -> set[str]:
    return {made.decode([one]) for one in ids}


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
def test_a_digit_is_one_token_wherever_an_answer_stands(digits: PreTrainedTokenizerFast, profile):
    spelling = Spelling(digits)
    for token in (*"0123456789", ".", " ", "\n"):
        assert texts(digits, spelling.token(token, profile)) == {token}


def test_an_answer_ends_with_any_token_that_its_closing_begins_with(digits: PreTrainedTokenizerFast):
    spelling = Spelling(digits)
    assert texts(digits, spelling.token(END, PROFILES["plain"])) == {"<|im_end|>"}
    boxed = texts(digits, spelling.token(END, PROFILES["evoquality"]))
    assert {text for text in boxed if not text.isspace()} == {"}", "}\n", "}.", " }"}
    assert {" ", "\n"} <= boxed
    tagged = texts(digits, spelling.token(END, PROFILES["visualquality-r1"]))
    assert {"<", "</", " "} <= tagged and not {"</b", ">", "}"} & tagged


@pytest.mark.parametrize("pattern", [r"\d+|\.|\D", r"[\d.]+|[^\d.]+", r"\{\d|\d|[^\d{]+|\{"])
def test_a_tokenizer_that_merges_digits_or_an_opening_with_one_is_told(pattern: str):
    spelling = Spelling(tokenizer(pattern, ["3.42", "42", "{3"]))
    with pytest.raises(NotSpelled, match="use mode=sampled"):
        spelling.token("3", PROFILES["evoquality"])
