"""`evoquality versions` and `evoquality info`: of a running service, or of a store's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from evoquality import Client
from evoquality.contract import SwapResponse
from service.commands.common import LOCAL, TIMEOUT_S, AsJson, Key, TimeLimit, Url, ask, need, out, show, stop
from service.errors import UserError
from service.files import read_key
from service.prompts import ProfileName

app = typer.Typer(no_args_is_help=True, help="Lists the versions of the weights, and changes which one serves.")

OperatorUrl = Annotated[str, typer.Option(help="The operators' port.", envvar="EVOQUALITY_OPERATOR_URL")]
OperatorKey = Annotated[str | None, typer.Option(help="The operators' key.", envvar="EVOQUALITY_OPERATOR_KEY")]
KeyFile = Annotated[Path, typer.Option(help="File with the operators' key.", envvar="EVOQUALITY_OPERATOR_KEY_FILE")]
PointerOf = Annotated[
    Path | None,
    typer.Option(
        "--store", help="Move this store's pointer instead of asking a service; replicas with `--follow` swap to it."
    ),
]
Checkpoint = Annotated[
    str,
    typer.Argument(
        help="A checkpoint directory, or a hub name like `Qwen/Qwen2.5-VL-7B-Instruct` (`@revision` may follow).",
        envvar="EVOQUALITY_CHECKPOINT",
    ),
]
NewStore = Annotated[Path, typer.Option(help="The store's folder; created if missing.", envvar="EVOQUALITY_STORE")]
Profile = Annotated[ProfileName, typer.Option(help="How the checkpoint answers.", envvar="EVOQUALITY_PROFILE")]
LOCAL_OPERATORS = "http://127.0.0.1:8001"
STORES_KEY = Path("store/operator.key")


@app.command("list")
def list_versions(url: Url = LOCAL, key: Key = None, timeout: TimeLimit = TIMEOUT_S, as_json: AsJson = False) -> None:
    """Lists the versions, the active one and the one a rollback leads to."""
    answer = ask(url, key, Client.versions, timeout)
    if as_json:
        print(answer.model_dump_json())
        return
    table = Table("", "version", "parent", "created", "profile", "origin")
    for info in answer.versions:
        other = "refused" if info.refused else ""
        mark = {answer.active: "active", answer.previous: "previous"}.get(info.id, other)
        created = f"{info.created:%Y-%m-%d %H:%M}"
        table.add_row(mark, info.id, info.parent or "", created, info.profile, escape(info.origin))
    show(table)


@app.command("import")
def import_(checkpoint: Checkpoint, store: NewStore, profile: Profile = "plain", as_json: AsJson = False) -> None:
    """Adds a checkpoint to a store's folder, and makes it active if no version is. Repeating it changes nothing.

    Replicas that wait for the first version of an empty store (`evoquality serve --follow`) start with it.
    """
    need("serve", "versions import")
    from service.commands import pointer

    info = pointer.add(store, checkpoint, profile)
    print(info.model_dump_json()) if as_json else out.print(f"{info.id} is in the store (profile {info.profile}).")


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="As `evoquality versions list` shows it.")],
    store: PointerOf = None,
    operator_url: OperatorUrl = LOCAL_OPERATORS,
    operator_key: OperatorKey = None,
    key_file: KeyFile = STORES_KEY,
    timeout: TimeLimit = TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Hot-swaps a version in. A version that fails its checks never serves."""
    if store:
        need("serve", "versions promote --store")
        from service.commands import pointer

        pointer.show(pointer.promote(store, version), as_json)
        return
    _show(ask(operator_url, _key(operator_key, key_file), lambda client: client.promote(version), timeout), as_json)


@app.command()
def rollback(
    store: PointerOf = None,
    operator_url: OperatorUrl = LOCAL_OPERATORS,
    operator_key: OperatorKey = None,
    key_file: KeyFile = STORES_KEY,
    timeout: TimeLimit = TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Hot-swaps the previous version back in."""
    if store:
        need("serve", "versions rollback --store")
        from service.commands import pointer

        pointer.show(pointer.rollback(store), as_json)
        return
    _show(ask(operator_url, _key(operator_key, key_file), Client.rollback, timeout), as_json)


def info(url: Url = LOCAL, key: Key = None, timeout: TimeLimit = TIMEOUT_S, as_json: AsJson = False) -> None:
    """Shows the serving version, its modes, and the limits of a request."""
    answer = ask(url, key, Client.info, timeout)
    if as_json:
        print(answer.model_dump_json())
        return
    table = Table(show_header=False)
    for name, value in answer.model_dump().items():
        table.add_row(name.replace("_", " "), escape(", ".join(value) if isinstance(value, list) else str(value)))
    show(table)


def _key(given: str | None, file: Path) -> str:
    if given is not None:
        return given
    try:
        return read_key(file)
    except OSError:
        stop(f"The operators' key {file} cannot be read. Give --key-file or --operator-key.")
    except UserError as error:
        stop(f"Nothing was changed: {error}.")


def _show(swap: SwapResponse, as_json: bool) -> None:
    if as_json:
        print(swap.model_dump_json())
    else:
        out.print(f"{swap.version} serves; requests waited for {swap.blackout_ms:.0f} ms (before: {swap.previous}).")
