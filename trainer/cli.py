"""`evoquality-trainer`: evolve a served model on your own unlabelled images, and measure what came of it."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

import httpx
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, CliApp, CliSubCommand, SettingsConfigDict
from rich.console import Console

from service.client import ServiceError
from trainer import termination
from trainer.errors import Collapsed, DiskFull, GateRefused, Occupied, Regressed, Unreachable, WrongVersion
from trainer.settings.evaluate import AuditSettings, EvaluateSettings
from trainer.settings.evolve import EvolveSettings, ReportSettings
from trainer.termination import Terminated

EXIT_WRONG_SETTINGS = 2
EXIT_SERVICE = 3
EXIT_WRONG_VERSION = 4
EXIT_DISK_FULL = 5
EXIT_OCCUPIED = 6
EXIT_GATE = 42
EXIT_REGRESSED = 43
EXIT_COLLAPSED = 44
_EXITS: dict[type[Exception], int] = {
    GateRefused: EXIT_GATE,
    Regressed: EXIT_REGRESSED,
    Collapsed: EXIT_COLLAPSED,
    WrongVersion: EXIT_WRONG_VERSION,
    DiskFull: EXIT_DISK_FULL,
    Occupied: EXIT_OCCUPIED,
    Unreachable: EXIT_SERVICE,
    ConnectionError: EXIT_SERVICE,
    ValueError: EXIT_WRONG_SETTINGS,
    OSError: EXIT_WRONG_SETTINGS,
}
"""The first that fits is the exit code."""
_PASSING = {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EREMOTEIO, errno.ETIMEDOUT}
"""What a network file system says while its server is away: no setting is wrong, and the next start may go well."""


class Evolve(EvolveSettings):
    """Runs evolution rounds against a running service: pool, votes, GRPO, gate, promotion, report.

    Example: evoquality-trainer evolve --pool photos/ --run runs/first

    A killed run resumes when it is started again with the same folder; on SIGTERM it writes a checkpoint and ends
    within seconds.

    Exit codes that a supervisor should answer by starting it again: 3 no answer from the service for --patience
    seconds, or a refusal that passes (under torchrun also: the process of rank 0 ended, whose own code tells why); 5
    disk full, once there is room; 6 another trainer is at work on the store, or in the run's folder; 137 killed; 143
    SIGTERM, 130 Ctrl-C.

    Exit codes that ask for a decision of yours: 2 wrong settings, not those the round began with, or a request that the
    service refuses for good; 4 the service serves another version than the round began with; 42 the gate refused the
    candidate; 43 the promoted version regressed, or a replica's canaries refused it, and was rolled back; 44 training
    collapsed. After 42, 43 and 44 the version from before serves. 0 is done, 1 an error of the trainer's own or of
    the file system.
    """

    def cli_cmd(self) -> None:
        """Runs the rounds, or tells what they would take."""
        if self.dry_run:
            return self._tell_price()
        from trainer.evolve import evolve

        return evolve(self)

    def _tell_price(self) -> None:
        from trainer.files import write_json
        from trainer.pricing.price import price, show

        if found := price(self):
            show(found, Console())
            if self.price:
                write_json(self.price, found.as_dict())


class Evaluate(EvaluateSettings):
    """Judges models on labelled benchmarks and compares them: metrics with intervals, tests against the first model.

    Example: evoquality-trainer evaluate --benchmarks data/koniq,data/kadid10k --models serving,v2ef5d96829e7

    Prints a table and writes to --out: index.html (plots, worst misses), table.md, table.tex, results.csv (a row a
    model and benchmark), results.json (everything, the averages' and the gain's intervals too), and every prediction
    (predictions/<model>/<benchmark>.jsonl), so that a killed evaluation goes on where it stopped, and a finished one
    is computed again without any model. Exit codes are those of evolve.
    """

    def cli_cmd(self) -> None:
        """Evaluates and compares."""
        from trainer.evaluation.comparison.run import run

        run(self)


class Audit(AuditSettings):
    """Has the service vote on pairs of labelled images, as a round does, and tells how good the votes are.

    Example: evoquality-trainer audit --benchmarks runs/demo/benchmarks --store runs/demo/store --out audit/

    How often they are right, by their margin and by how far apart the images truly are, and whether they are as sure
    as right; cycles among triples; how far the order of presentation decides. Before a round on images of your own,
    those on a benchmark like them tell what the pseudo-labels will be worth. Run again with the same --out after a
    promotion, it tells which labels changed, and whether for the better.

    Writes audit.json and audit.html with plots. The votes are kept, so that a killed audit resumes. Exit codes are
    those of evolve.
    """

    def cli_cmd(self) -> None:
        """Asks for what is missing and writes the results."""
        from service.versions.store import VersionStore
        from trainer.evaluation.benchmarks.load import load_all
        from trainer.evaluation.pseudo_labels import benchmark_audit
        from trainer.progress import Stages
        from trainer.reporting.audit import table, write_audit

        version = benchmark_audit.ask(self, load_all(self.benchmarks, self.split), Stages())
        order = [info.id for info in VersionStore(self.store).list()]
        found = benchmark_audit.figures(self.out, order)
        write_audit(self.out, found)
        Console().print(table(found, version))
        Console().print(f"wrote {self.out / 'audit.html'} and {self.out / 'audit.json'}")


class Report(ReportSettings):
    """Writes the report of a run again, from the files in its folder: report.html with plots, and report.json."""

    def cli_cmd(self) -> None:
        """Writes both files."""
        from trainer.reporting.report import write_report

        write_report(self.run)
        Console().print(f"wrote {self.run / 'report.html'} and {self.run / 'report.json'}")


class Trainer(BaseSettings):
    """EvoQuality's trainer: lets a served image quality model improve itself on unlabelled images."""

    model_config = SettingsConfigDict(
        cli_prog_name="evoquality-trainer", cli_kebab_case=True, cli_hide_none_type=True, env_prefix="\0"
    )

    evolve: CliSubCommand[Evolve]
    evaluate: CliSubCommand[Evaluate]
    audit: CliSubCommand[Audit]
    report: CliSubCommand[Report]

    def cli_cmd(self) -> None:
        """Runs the subcommand."""
        CliApp.run_subcommand(self)


def app() -> None:
    """The console script."""
    in_sentences(lambda: CliApp.run(Trainer))


def in_sentences(work: Callable[[], object]) -> None:
    """Does it until a signal comes. What ends it is said in a sentence, with the exit code that `Evolve` lists."""
    termination.listen()
    try:
        work()
    except ValidationError as error:
        _stop(EXIT_WRONG_SETTINGS, "; ".join(map(_sentence, error.errors())))
    except httpx.TransportError as error:
        _stop(EXIT_SERVICE, f"the service cannot be reached ({error}); is it running, and are its addresses right?")
    except ServiceError as refusal:
        _stop(*_told(refusal))
    except Terminated as end:
        _stop(end.exit_code, f"ended by {end.signal}; start it again to go on")
    except tuple(_EXITS) as error:
        if getattr(error, "errno", None) in _PASSING:
            raise
        _stop(next(code for kind, code in _EXITS.items() if isinstance(error, kind)), str(error))


def _sentence(problem: ErrorDetails) -> str:
    """Which flag is wrong, and why. `loc` is (subcommand, field), or the subcommand alone for several fields."""
    flag = f"--{problem['loc'][-1]}: ".replace("_", "-") if len(problem["loc"]) > 1 else ""
    return flag + problem["msg"].removeprefix("Value error, ")


def _told(refusal: ServiceError) -> tuple[int, str]:
    """The exit code, and what to do."""
    problem = refusal.problem
    if problem.status >= 500 or problem.status in {408, 429} or problem.code == "version_conflict":
        return EXIT_SERVICE, f"the service refused a request for now ({refusal}); start it again"
    return EXIT_WRONG_SETTINGS, (
        f"the service refused a request ({refusal}); that will not pass by itself: change what it names before you "
        "start again"
    )


def _stop(code: int, sentence: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"evoquality-trainer: {sentence}", style="red", highlight=False)
    sys.exit(code)


if __name__ == "__main__":
    app()
