"""Images as programs have them: paths, URLs and base64 of every kind, few and many."""

from __future__ import annotations

import base64
from pathlib import Path

import httpx
import pytest

from evoquality import AsyncClient, Client, ServiceError, encode_image
from evoquality.contract import MAX_BATCH, ScoreOptions
from tests.service.conftest import Listening, picture

DATA = picture(200)
PLAIN = base64.b64encode(DATA).decode()


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.rstrip("="),
        f"  {PLAIN}\n",
        base64.encodebytes(DATA).decode(),
        "\r\n\t".join(PLAIN[at : at + 60] for at in range(0, len(PLAIN), 60)),
        base64.urlsafe_b64encode(DATA).decode(),
        f"data:image/png;base64,{PLAIN}",
        f"\n data:image/png;base64,\n{PLAIN}\n",
        f"DATA:IMAGE/PNG;BASE64,{PLAIN}",
        f"data:;base64,{PLAIN}",
        f"data:image/png;charset=utf-8;base64,{PLAIN}",
        f'data:image/png;name="a, b; c.png";base64,{PLAIN}',
        f"data:image/png; charset=utf-8; name=a%20b.png; base64,{PLAIN}",
        "data:image/png;base64," + PLAIN.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
        "data:application/octet-stream;filename=" + "long" * 60 + ".png;base64," + PLAIN,
    ],
)
def test_base64_is_read_as_programs_write_it(text: str, listening: Listening):
    answer = httpx.post(f"{listening.url}/v1/score", json={"image": text})
    assert answer.status_code == 200, answer.text
    with Client(listening.url) as client:
        assert answer.json()["score"] == client.score(DATA).score


@pytest.mark.parametrize(
    "text", ["example.com/a.png", "//example.com/a.png", "www.example.com", "file:///a.png", "C:\\a"]
)
def test_an_address_that_is_not_one_of_https_is_said_to_need_its_scheme(text: str, listening: Listening):
    problem = httpx.post(f"{listening.url}/v1/score", json={"image": text}).json()
    assert (problem["status"], "https://" in problem["detail"]) == (422, True)


def test_an_image_may_be_a_path_bytes_or_a_url(listening: Listening, tmp_path: Path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(DATA)
    forms = ["a.png", Path("a.png"), str(tmp_path / "a.png"), DATA, bytearray(DATA), memoryview(DATA)]
    forms.append(f"data:image/png;base64,{PLAIN}")

    async def story() -> list[float]:
        async with AsyncClient(listening.url) as client:
            return [(await client.score(image)).score for image in forms]

    with Client(listening.url) as client:
        assert len({client.score(image).score for image in forms} | set(run(story()))) == 1
        items = client.score_batch(forms, ScoreOptions(samples=2, distribution=True)).results
        assert [item.result.samples for item in items] == [2] * len(forms)
        assert client.compare("a.png", forms[-1]).preferred == "tie"
        assert len(client.rank(forms).ranking) == len(forms)
        with pytest.raises(ServiceError) as refused:
            client.score("https://example.com/a.png")
        assert refused.value.problem.code == "url_refused"
        with pytest.raises(FileNotFoundError, match=r"example\.com/a\.png"):
            client.score("example.com/a.png")
    assert encode_image("a.png") == encode_image(DATA) == PLAIN


@pytest.mark.parametrize("count", [0, 1, MAX_BATCH, MAX_BATCH + 1, 2 * MAX_BATCH + 2])
def test_any_number_of_images_is_a_batch(count: int, listening: Listening, run):
    images = [picture(number) for number in range(count)]

    async def story() -> tuple[object, list[int]]:
        async with AsyncClient(listening.url) as client:
            return await client.score_batch(images), [item.index async for item in client.score_stream(images)]

    with Client(listening.url) as client:
        answer = client.score_batch(images)
        scores = [item.result.score for item in answer.results]
        assert [item.index for item in answer.results] == list(range(count))
        assert scores == sorted(scores) and len(set(scores)) >= count / 4
        assert answer.version == listening.world.first
        assert sorted(item.index for item in client.score_stream(images)) == list(range(count))
        streamed = {item.index: item.result.score for item in client.score_stream(images)}
        assert [streamed[index] for index in range(count)] == scores
    batch, indices = run(story())
    assert (batch, sorted(indices)) == (answer, list(range(count)))
