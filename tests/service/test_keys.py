"""The public routes' keys: the file, who is let in, how much each may ask."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from service.api import keys as module
from service.api.keys import Keys, Rates, add_key, read_keys
from service.cli import app as cli
from service.errors import InvalidRequest, UserError
from tests.service.conftest import World, picture
from tests.service.test_http import assert_problem
from tests.service.test_settings import serve

IMAGE = picture(128)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def ask(world: World, run, key: str | None = None, path: str = "/v1/score", times: int = 1) -> list[httpx.Response]:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    async def story() -> list[httpx.Response]:
        async with world.public() as client:
            if path != "/v1/score":
                return [await client.get(path, headers=headers)]
            calls = (client.post(path, files={"image": IMAGE}, headers=headers) for _ in range(times))
            return await asyncio.gather(*calls)

    return run(story())


def test_without_a_file_everybody_may_ask(world: World, run):
    assert ask(world, run)[0].status_code == 200


def test_with_a_file_only_its_keys_are_let_in(make_world, run, file: Path):
    keys = [add_key(file, name, None, None) for name in ("one", "two", "three")]
    world = make_world(keys_file=file)
    for key in keys:
        assert ask(world, run, key)[0].status_code == 200
    for wrong in (None, "", keys[0][:-1], keys[0] + "x", hashlib.sha256(keys[0].encode()).hexdigest()):
        (refused,) = ask(world, run, wrong)
        assert_problem(refused, 401, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"
    assert_problem(ask(world, run, None, "/v1/versions")[0], 401, "unauthorized")
    assert ask(world, run, keys[0], "/v1/versions")[0].status_code == 200


def test_health_needs_no_key(make_world, run, file: Path):
    add_key(file, "one", None, None)
    world = make_world(keys_file=file)
    for path in ("/health/live", "/health/ready"):
        assert ask(world, run, None, path)[0].status_code == 200


def test_a_public_key_opens_no_operators_route(make_world, run, file: Path):
    key = add_key(file, "one", None, None)
    world = make_world(keys_file=file)

    async def story() -> httpx.Response:
        async with world.operators(key) as client:
            return await client.post("/internal/rollback")

    assert_problem(run(story()), 401, "unauthorized")


def test_every_key_is_compared_whichever_is_the_right_one(run, file: Path, monkeypatch: pytest.MonkeyPatch):
    secrets = [add_key(file, name, None, None) for name in ("one", "two", "three")]
    keys = Keys(file)
    compared: list[str] = []
    honest = module.hmac.compare_digest
    monkeypatch.setattr(module.hmac, "compare_digest", lambda a, b: compared.append(b) or honest(a, b))
    for secret in (*secrets, "wrong"):
        compared.clear()
        run(keys.find(secret))
        assert len(compared) == 3


def test_a_rotated_secret_is_read_again(run, file: Path, monkeypatch: pytest.MonkeyPatch):
    """As Kubernetes does it: a symbolic link to a directory is replaced."""
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)
    mount = file.parent / "mount"
    for name in ("first", "second"):
        (mount / name).mkdir(parents=True)
    old, new = (add_key(mount / name / "keys.toml", "gateway", None, None) for name in ("first", "second"))
    (mount / "..data").symlink_to("first")
    (mount / "keys.toml").symlink_to("..data/keys.toml")
    keys = Keys(mount / "keys.toml")
    assert run(keys.find(old)) and not run(keys.find(new))
    (mount / "..data_tmp").symlink_to("second")
    os.replace(mount / "..data_tmp", mount / "..data")
    assert run(keys.find(new)) and not run(keys.find(old))


def test_a_file_broken_later_leaves_the_old_keys_and_says_so(run, file: Path, monkeypatch, caplog):
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)
    key = add_key(file, "one", None, None)
    keys = Keys(file)
    file.write_text("[[keys]")
    assert run(keys.find(key))
    assert "the earlier keys stay valid" in caplog.text
    file.unlink()
    assert run(keys.find(key))
    other = add_key(file, "two", None, None)
    assert run(keys.find(other)) and not run(keys.find(key))


def test_an_unchanged_file_is_not_read_again(run, file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)
    keys = Keys(file) if add_key(file, "one", None, None) else None
    monkeypatch.setattr(module, "read_keys", None)
    assert keys and run(keys.find("wrong")) is None


HASH = "0" * 64
BROKEN = {
    "no TOML": "[[keys",
    "no keys": "",
    "an empty list": "keys = []",
    "no hash": '[[keys]]\nname = "a"',
    "a key instead of its hash": '[[keys]]\nname = "a"\nsha256 = "secret"',
    "an unknown field": f'[[keys]]\nname = "a"\nsha256 = "{HASH}"\nrequest_per_minute = 3',
    "a limit of nothing": f'[[keys]]\nname = "a"\nsha256 = "{HASH}"\nrequests_per_minute = 0',
    "a name twice": f'[[keys]]\nname = "a"\nsha256 = "{HASH}"\n[[keys]]\nname = "a"\nsha256 = "{"1" * 64}"',
    "a hash twice": f'[[keys]]\nname = "a"\nsha256 = "{HASH}"\n[[keys]]\nname = "b"\nsha256 = "{HASH}"',
    "no UTF-8": b"\xff",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_refused_without_its_content(file: Path, content: str | bytes):
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"the keys file .*keys\.toml is") as refusal:
        Keys(file)
    assert "secret" not in str(refusal.value) and HASH not in str(refusal.value)


def test_a_broken_file_stops_the_start(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVOQUALITY_KEYS_FILE", str(file))
    code, sentence = serve("--store", str(tmp_path / "store"))
    assert code == 2 and "keys file" in sentence and "cannot be read" in sentence
    file.write_text("keys = []")
    assert "is wrong" in serve("--store", str(tmp_path / "store"))[1]


def add(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["keys", "add", *map(str, arguments)])
    return done.exit_code, done.stdout.strip(), done.stderr


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_the_command_prints_a_key_once_and_stores_its_hash(tmp_path: Path, suffix: str):
    file = tmp_path / f"keys.{suffix}"
    _, first, _ = add("gateway", "--file", file, "--requests-per-minute", 600, "--max-in-flight", 32)
    _, second, _ = add("page", "--file", file)
    gateway, page = read_keys(file)
    assert (gateway.name, gateway.requests_per_minute, gateway.max_in_flight) == ("gateway", 600, 32)
    assert (page.name, page.requests_per_minute) == ("page", None)
    assert [key.sha256 for key in (gateway, page)] == [hashlib.sha256(k.encode()).hexdigest() for k in (first, second)]
    assert first not in file.read_text() and len(first) >= 32
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_command_leaves_comments_and_other_keys_alone(file: Path):
    file.write_text(f'# ours\n[[keys]]\nname = "old"\nsha256 = "{HASH}"')
    add("new", "--file", file)
    assert file.read_text().startswith("# ours\n")
    assert [key.name for key in read_keys(file)] == ["old", "new"]


def test_the_command_changes_nothing_when_it_cannot(file: Path):
    add("one", "--file", file)
    before = file.read_text()
    for name in ("one", "../x", ""):
        code, printed, sentence = add(name, "--file", file)
        assert (code, printed) == (2, "") and "Nothing was changed" in sentence
    assert add("two", "--file", file.parent / "no" / "keys.toml")[0] == 2
    assert file.read_text() == before


def test_more_requests_a_minute_than_the_key_has_are_told_when_to_come_back(make_world, run, file: Path):
    limited, free = add_key(file, "limited", 2, None), add_key(file, "free", None, None)
    world = make_world(keys_file=file)
    statuses = [response.status_code for response in ask(world, run, limited, times=3)]
    assert sorted(statuses) == [200, 200, 429]
    (refused,) = ask(world, run, limited)
    assert_problem(refused, 429, "rate_limited")
    assert 55 <= int(refused.headers["retry-after"]) <= 60
    assert ask(world, run, free)[0].status_code == 200


def test_three_hundred_at_once_are_counted_exactly(make_world, run, file: Path):
    key = add_key(file, "limited", 37, None)
    world = make_world(keys_file=file, max_in_flight=300)
    statuses = [response.status_code for response in ask(world, run, key, times=300)]
    assert (statuses.count(200), statuses.count(429)) == (37, 263)


def test_listings_count_against_the_keys_limit_too(make_world, run, file: Path):
    key = add_key(file, "one", 2, None)
    world = make_world(keys_file=file)
    for path, status in (("/v1/info", 200), ("/v1/versions", 200), ("/v1/info", 429), ("/v1/versions", 429)):
        assert ask(world, run, key, path)[0].status_code == status


def test_the_window_moves(make_world, run, file: Path, monkeypatch: pytest.MonkeyPatch):
    key = add_key(file, "one", 2, None)
    world = make_world(keys_file=file)
    ask(world, run, key, times=2)
    for entry in world.service.rates._storage.events[next(iter(world.service.rates._storage.events))]:
        entry.atime -= 50
    (refused,) = ask(world, run, key)
    assert 5 <= int(refused.headers["retry-after"]) <= 10


def test_more_at_the_same_time_than_the_key_has_are_refused(make_world, run, file: Path):
    key = add_key(file, "one", None, 2)
    world = make_world(keys_file=file)
    world.engine.seconds = 0.05
    responses = ask(world, run, key, times=5)
    assert sorted(response.status_code for response in responses) == [200, 200, 429, 429, 429]
    assert ask(world, run, key)[0].status_code == 200


@pytest.mark.parametrize("path", ["/v1/score/batch", "/v1/rank"])
def test_a_request_of_many_images_counts_as_many_and_passes_when_it_was_told(make_world, run, file: Path, path: str):
    key = add_key(file, "one", 4, None)
    world = make_world(keys_file=file)
    events = world.service.rates._storage.events

    async def story() -> None:
        headers = {"Authorization": f"Bearer {key}"}
        async with world.public() as client:

            async def send(images: int) -> httpx.Response:
                return await client.post(path, files=[("images", IMAGE)] * images, headers=headers)

            assert_problem(await send(5), 422, "invalid_request")
            assert (await send(4)).status_code == 200
            for _ in range(3):  # what is refused costs nothing
                refused = await send(4)
                assert_problem(refused, 429, "rate_limited")
            for entry in next(iter(events.values())):
                entry.atime -= int(refused.headers["retry-after"])
            assert (await send(4)).status_code == 200

    run(story())


def test_a_request_that_could_never_pass_is_told_so(run, file: Path):
    add_key(file, "one", 10, None)
    with pytest.raises(InvalidRequest, match="10 a minute"):
        run(Rates().charge(read_keys(file)[0], 11))


def test_json_is_read_where_the_file_is_named_so(tmp_path: Path):
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [{"name": "a", "sha256": HASH}]}))
    assert read_keys(file)[0].name == "a"
