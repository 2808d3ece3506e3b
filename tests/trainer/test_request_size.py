"""How much one request carries, by bytes: the largest images of a pool never make a body that the service refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from service.client import ServiceError, encode_image
from service.configuration.settings import Settings
from service.contract import ExactVotesRequest, RolloutRequest
from tests.service.conftest import World, picture
from tests.trainer.replicas import EXPECTED, Replicas, batch, scores
from trainer.workers import spread
from trainer.workers.spread import fitting

IMAGES = {"a": "x" * 10, "b": "x" * 20, "c": "x" * 30, "d": "x" * 99}


@pytest.fixture
def _sixty_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "MAX_IMAGE_BYTES", 60)


@pytest.mark.usefixtures("_sixty_bytes")
@pytest.mark.parametrize(
    ("items", "count"),
    [(["ab", "bc", "ca"], 3), (["ab", "c", "d"], 2), (["d", "a"], 1), (["a", "d"], 1), (["aa", "aa", "bb"], 3)],
)
def test_as_many_as_fit_are_taken_each_image_counted_once_and_one_in_any_case(items: list[str], count: int) -> None:
    assert fitting(items, list, IMAGES) == items[:count]


def test_a_pair_of_the_longest_files_fits_and_the_rest_of_a_body_has_room() -> None:
    of = Settings.model_fields
    longest = of["max_upload_bytes"].default * 4 / 3
    assert 2 * longest < spread.MAX_IMAGE_BYTES < of["max_operator_bytes"].default / 2


@pytest.fixture
def narrow(make_world: Callable[..., World], hurry: None) -> Iterator[Replicas]:
    """Two replicas that take 30,000 bytes a request."""
    made = Replicas(make_world(max_operator_bytes=30_000))
    made.start()
    made.start()
    yield made
    made.stop_all()


def heavy(replicas: Replicas) -> RolloutRequest:
    """A batch of eight images of 8,000 bytes: what follows a PNG's end is not looked at."""
    request = batch(replicas)
    padded = {str(n): encode_image(picture(10 + 20 * n).ljust(6000, b"\0")) for n in range(8)}
    return request.model_copy(update={"images": padded})


def test_a_batch_too_long_for_one_request_is_asked_in_several(
    narrow: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread, "MAX_IMAGE_BYTES", 25_000)
    request = heavy(narrow)
    pairs = [(str(n), str(n + 1)) for n in range(7)]
    exact = ExactVotesRequest(images=request.images, pairs=pairs, version=request.version)
    with narrow.workers() as workers:
        assert scores(workers.rollouts(request)) == EXPECTED
        assert (narrow.asked(0), narrow.asked(1)) == (4, 4)
        votes = workers.call(workers.asynchronous.exact_votes, exact).results
    assert len(votes) == 7
    assert all(vote.forward.second > vote.forward.first for vote in votes)


def test_a_request_that_the_service_never_takes_is_refused_at_once(narrow: Replicas) -> None:
    with narrow.workers() as workers, pytest.raises(ServiceError, match="413 body_too_large"):
        workers.rollouts(heavy(narrow))
    assert narrow.said == []
