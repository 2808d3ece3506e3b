"""Generates REFERENCE.md, the OpenAPI documents and the table of exit codes in trainer/README.md from the code:
`python -m tests.reference`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from fastapi import FastAPI
from prometheus_client.metrics import MetricWrapperBase

from service.api.openapi import all_errors
from service.api.problems import HTTP_CODES, HTTP_DETAILS
from service.api.service import create_service
from service.app import create_app, create_operator_app
from service.configuration import catalogue
from service.configuration.settings import Settings
from service.configuration.sources import OTHERS, variable
from service.engine.protocol import Engine
from service.observability import metrics
from service.versions.store import VersionStore
from tests.service.conftest import checkpoint
from trainer.exit_codes import exit_codes

ROOT = Path(__file__).parents[1]
_HOW_TO_SET = """\
A setting is a flag of `evoquality serve` (`--max-in-flight`), an environment variable, or a key of the TOML file that
`--config` or `EVOQUALITY_CONFIG` names (`max_in_flight = 64`); the first of these that has it gives it. Variables of
the trainer begin with `EVOQUALITY_TRAINER_`; the other commands read {others}. On
Kubernetes set `enableServiceLinks: false`, or a Service named `evoquality` puts variables of its own beside these."""


def documents() -> dict[str, str]:
    """The text of every generated file, by its path."""
    with TemporaryDirectory() as folder:
        store = VersionStore(Path(folder) / "store")
        version = store.add(checkpoint(Path(folder) / "source", 1), parent=None, profile="plain", origin="")
        no_engine = cast(Engine, None)  # never asked
        service = create_service(Settings.model_construct(), "", no_engine, store, version)
        public, operators = create_app(service), create_operator_app(service)
    return {
        "service/openapi.json": _as_json(public),
        "service/openapi-operators.json": _as_json(operators),
        "service/REFERENCE.md": "\n".join(_reference({"Public routes": public, "Operators' routes": operators})) + "\n",
        "trainer/README.md": _with_exit_codes((ROOT / "trainer/README.md").read_text()),
    }


def _with_exit_codes(readme: str) -> str:
    """The README with the table of exit codes between its two marks."""
    before, after = readme.split("<!-- exit-codes -->")[0], readme.split("<!-- /exit-codes -->")[1]
    rows = [(str(row.code), row.meaning, "yes" if row.restart else "no") for row in exit_codes()]
    table = _table(("Exit code", "Meaning", "Start it again?"), [("0", "done", ""), *rows])
    return "\n".join((f"{before}<!-- exit-codes -->", *table, f"<!-- /exit-codes -->{after}"))


def _as_json(app: FastAPI) -> str:
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n"


def _reference(apps: Mapping[str, FastAPI]) -> Iterator[str]:
    yield from ("# Reference", "", "Generated from the code by `make reference`; do not edit.", "")
    yield from _settings()
    for title, app in apps.items():
        yield from ("", f"## {title}", "", *_table(("Route", "What it does"), _routes(app)))
    yield from ("", "## Errors", "", "RFC 9457 problems; `code` is stable.", "")
    yield from _table(("Status", "Code", "Title", "Retry-After, s"), _errors())
    yield from ("", "## Metrics", "", "Beside them stand vLLM's own, `vllm:…`.", "")
    yield from _table(("Name", "Kind", "Labels", "Meaning"), _metrics())


def _settings() -> Iterator[str]:
    yield "## Settings"
    yield ""
    yield _HOW_TO_SET.format(others=", ".join(f"`{name}`" for name in sorted(OTHERS)))
    section = ""
    for entry in catalogue.settings():
        if entry.section != section:
            section = entry.section
            yield from ("", f"### {section}", "", *_header(("Setting", "Variable", "Kind", "Default", "Meaning")))
        default = f"`{entry.default}`" if entry.default else ""
        yield _row((f"`{entry.name}`", f"`{variable(entry.name)}`", entry.kind.lower(), default, entry.help))


def _routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            yield f"`{method.upper()} {path}`", operation.get("description", "").partition("\n\n")[0]


def _errors() -> Iterator[tuple[str, ...]]:
    http = [(str(status), f"`{code}`", HTTP_DETAILS[status], "") for status, code in HTTP_CODES.items()]
    own = [(str(e.status), f"`{e.code}`", e.title, str(e.retry_after_s or "")) for e in all_errors()]
    yield from sorted(http + own)


def _metrics() -> Iterator[tuple[str, ...]]:
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            [family] = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)
            yield f"`{name}`", family.type, labels, family.documentation


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield from _header(tuple(columns))
    yield from map(_row, rows)


def _header(columns: tuple[str, ...]) -> tuple[str, str]:
    return _row(columns), "|" + "---|" * len(columns)


def _row(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |"


def write() -> None:
    """Writes every generated file anew."""
    for name, text in documents().items():
        (ROOT / name).write_text(text)


if __name__ == "__main__":
    write()
