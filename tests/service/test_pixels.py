"""How many pixels of a picture fit into the engine's context, against the image processor's own scaling."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from service.engine.pixels import Asked, PixelLimits, check_fits, fitting
from service.errors import UserError
from service.images.picture import MAX_SIDE_RATIO

QWEN = PixelLimits(56 * 56, 12_845_056, 28)
"""Of Qwen2.5-VL's preprocessor_config.json."""
PLAIN = [Asked(1, 83, 6), Asked(2, 75, 3)]
THINKING = [Asked(1, 130, 1024), Asked(2, 122, 1024)]


def tokens(limits: PixelLimits, width: int, height: int) -> int:
    rows, columns = smart_resize(height, width, limits.side, limits.smallest, limits.largest)
    return rows * columns // limits.side**2


def pictures() -> list[tuple[int, int]]:
    """Sizes that the service takes: photographs, panoramas as long as may be, icons."""
    drawn = random.Random(0)
    found = [(28, 28), (2800, 28), (28, 2800), (16_384, 164), (4000, 3000), (6000, 6600)]
    for _ in range(300):
        short = round(28 * 2 ** drawn.uniform(0, 7))
        found.append((short, min(16_384, round(short * MAX_SIDE_RATIO ** drawn.random()))))
    return found


@pytest.mark.parametrize("context", [160, 256, 512, 2048, 4096, 32_768])
@pytest.mark.parametrize("asked", [PLAIN, THINKING], ids=["plain", "thinking"])
def test_every_picture_fits_with_its_question_and_its_answer(context: int, asked: list[Asked]):
    if context <= 2048 and asked is THINKING:
        context *= 9
    limits = fitting(QWEN, asked, context)
    for one in asked:
        most = max(tokens(limits, *size) for size in pictures())
        assert one.pictures * most + one.text + one.answer <= context
        assert most <= limits.most_tokens()


def test_a_photograph_takes_nearly_all_of_the_room():
    limits = fitting(QWEN, PLAIN, 4096)
    assert 0.95 < (2 * tokens(limits, 4000, 3000) + 78) / 4096 <= 1


def test_what_fits_stays_as_the_checkpoint_has_it():
    embedded = replace(QWEN, largest=112 * 112)
    assert fitting(embedded, PLAIN, 512) == embedded
    assert fitting(QWEN, PLAIN, 40_000) == QWEN
    check_fits(embedded, PLAIN, 512)


def test_a_setting_that_does_not_fit_is_refused_with_the_arithmetic_and_its_advice_fits():
    with pytest.raises(UserError) as refusal:
        check_fits(QWEN, THINKING, 4096)
    for part in ("12,845,056", "16,384 visual tokens", "2 of them", "1,024 of answer", "33,914", "4,096", "1,156,400"):
        assert part in str(refusal.value)
    check_fits(QWEN, THINKING, 33_914)
    check_fits(replace(QWEN, largest=1_156_400), THINKING, 4096)


def test_pictures_that_must_be_scaled_up_to_more_than_fits_are_refused():
    with pytest.raises(UserError, match=r"min_pixels is 1,003,520.*max_model_len is 512"):
        fitting(replace(QWEN, smallest=1_003_520), PLAIN, 512)
    with pytest.raises(UserError, match="max_model_len to at least"):
        fitting(QWEN, THINKING, 512)
