"""The exit codes, made from the error tree for `evolve --help` and the table in `trainer/README.md`."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.errors import TrainerError


@dataclass(frozen=True, slots=True)
class ExitCode:
    """One exit code; `restart` says whether a supervisor should start the trainer again."""

    code: int
    meaning: str
    restart: bool


def exit_codes() -> list[ExitCode]:
    """Every exit code but 0, in ascending order."""
    others = [
        ExitCode(1, "a bug or a failure of the machine, with its traceback; a few more starts may help", True),
        ExitCode(130, "ended by Ctrl-C, with a checkpoint", True),
        ExitCode(137, "killed", True),
        ExitCode(143, "ended by SIGTERM, with a checkpoint", True),
    ]
    own = {
        kind.exit_code: ExitCode(kind.exit_code, kind.meaning, kind.restart) for kind in TrainerError.__subclasses__()
    }
    return sorted([*own.values(), *others], key=lambda row: row.code)


def help_text() -> str:
    """The paragraphs for `evolve --help`."""
    listed = {
        restart: "\n".join(
            f"  {row.code:>3}  {row.meaning.replace('`', '')}" for row in exit_codes() if row.restart is restart
        )
        for restart in (True, False)
    }
    return (
        f"Exit codes after which a supervisor should start it again:\n{listed[True]}\n\n"
        f"Exit codes after which a person must decide:\n{listed[False]}\n"
    )
