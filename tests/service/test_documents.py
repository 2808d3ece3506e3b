"""The documents generated from the code are current, complete, and readable without a network."""

from __future__ import annotations

import re

import pytest

from service.configuration.settings import Settings
from tests import reference
from tests.service.conftest import World

FILES = ["service/REFERENCE.md", "service/openapi-operators.json", "service/openapi.json", "trainer/README.md"]


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    return reference.documents()


@pytest.mark.parametrize("name", FILES)
def test_the_committed_documents_are_those_of_the_code(generated: dict[str, str], name: str):
    current = (reference.ROOT / name).read_text()
    assert current == generated[name], f"{name} is out of date: run `make reference`"


def test_no_document_is_left_out(generated: dict[str, str]):
    assert sorted(generated) == sorted(FILES)


def test_documents_do_not_depend_on_the_environment(generated: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVOQUALITY_PORT", "1")
    assert reference.documents() == generated


def test_the_reference_names_every_setting_with_its_variable(generated: dict[str, str]):
    for name, field in Settings.model_fields.items():
        assert f"| `{name}` | `EVOQUALITY_{name.upper()}` |" in generated["service/REFERENCE.md"]
        assert field.description


@pytest.mark.parametrize("port", ["public", "operators"])
def test_the_documentation_needs_no_other_host(world: World, run, port: str):
    async def story() -> None:
        async with getattr(world, port)() as client:
            page = (await client.get("/docs")).text
            links = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
            assert len(links) >= 2
            for link in links:
                assert link.startswith("/")
                assert (await client.get(link)).status_code == 200
            assert not re.findall(r"https?://", page)

    run(story())
