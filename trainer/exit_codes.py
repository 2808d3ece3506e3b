"""The table of exit codes, made from the error tree for `evolve --help` and `trainer/README.md`.

`python -m trainer.exit_codes` writes it into the README between `<!-- exit-codes -->` and `<!-- /exit-codes -->`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.errors import TrainerError

README = Path(__file__).with_name("README.md")
_BEGIN, _END = "<!-- exit-codes -->\n", "<!-- /exit-codes -->"


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


def markdown() -> str:
    """The table for the README."""
    rows = [f"| {row.code} | {row.meaning} | {'yes' if row.restart else 'no'} |\n" for row in exit_codes()]
    return "| Exit code | Meaning | Start it again? |\n|---|---|---|\n| 0 | done | |\n" + "".join(rows)


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


def main() -> None:
    """Writes the table into the README."""
    before, begun, rest = README.read_text(encoding="utf-8").partition(_BEGIN)
    _, ended, after = rest.partition(_END)
    if not begun or not ended:
        raise SystemExit(f"{README} has no place for the table: add the lines {_BEGIN.strip()} and {_END}")
    README.write_text(f"{before}{_BEGIN}{markdown()}{_END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
