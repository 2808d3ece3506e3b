"""`evoquality-trainer`: evolves a served model on your own unlabelled images, and measures the result."""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import cleandoc
from typing import NoReturn, TypeVar

import httpx
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, CliApp, CliSubCommand, SettingsConfigDict, SettingsError
from rich.console import Console

from evoquality import ServiceError
from service.errors import ReadOnlyStore, UnknownVersion, VersionError
from service.errors import UserError as ServicesUserError
from service.extras import require
from service.terminal import any_terminal
from trainer import termination
from trainer.errors import Refused, RefusedForNow, TrainerError, Unreachable, UserError
from trainer.exit_codes import help_text
from trainer.pool.sources import PARQUET, paths
from trainer.settings.evaluate import AuditSettings, EvaluateSettings
from trainer.settings.evolve import EvolveSettings, ReportSettings
from trainer.termination import Terminated

T = TypeVar("T", bound=BaseSettings)


class Evolve(EvolveSettings):
    """Runs evolution rounds against a running service: pool, votes, GRPO, gate, promotion, report.

    Example: evoquality-trainer evolve --pool photos/ --run runs/first

    A killed run that is started again with the same folder resumes. On SIGTERM it writes a checkpoint and ends within
    seconds.
    """

    def cli_cmd(self) -> None:
        """Runs the rounds, or shows what they would take."""
        self._require_extras()
        if self.dry_run:
            return self._show_price()
        from trainer.evolve import evolve

        return evolve(self)

    def _require_extras(self) -> None:
        """Raises the service's UserError if an extra is missing, before anything is imported or made."""
        if self.mlflow:
            require("mlflow", "--mlflow")
        if any(path.suffix.lower() == PARQUET for path, _ in paths(self.pool, self.follow_links)):
            require("parquet", "a pool in Parquet")

    def _show_price(self) -> None:
        from trainer.files import write_json
        from trainer.pricing.price import price, show

        if found := price(self):
            show(found, Console())
            if self.price:
                write_json(self.price, found.as_dict())


Evolve.__doc__ = f"{cleandoc(Evolve.__doc__ or '')}\n\n{help_text()}"


class Evaluate(EvaluateSettings):
    """Evaluates models on labelled benchmarks and compares them: metrics with intervals, tests against the first model.

    Example: evoquality-trainer evaluate --benchmarks data/koniq,data/kadid10k --models serving,v9df0ac5853e5

    Prints a table and writes to --out: index.html (plots, worst misses), table.md, table.tex, results.csv (a row for
    each model and benchmark), results.json (everything, with the intervals of averages and gain), and every prediction
    (predictions/<model>/<benchmark>.jsonl). A killed evaluation resumes where it stopped; a finished one is computed
    again without any model. Exit codes are those of evolve.
    """

    def cli_cmd(self) -> None:
        """Evaluates and compares."""
        from trainer.evaluation.comparison.run import run

        run(self)


class Audit(AuditSettings):
    """Asks the service to vote on pairs of labelled images, as a round does, and measures the quality of the votes.

    Example: evoquality-trainer audit --benchmarks runs/demo/benchmarks --store runs/demo/store --out audit/

    Measures accuracy by margin and by the images' true difference, calibration, cycles among triples, and position
    bias. Before a round on your own images, an audit on a similar benchmark shows the quality of the pseudo-labels. Run
    again with the same --out after a promotion, it shows which labels changed, and whether for the better.

    Writes audit.json and audit.html with plots. It keeps the votes, so that a killed audit resumes. Exit codes are
    those of evolve."""

    def cli_cmd(self) -> None:
        """Asks for missing votes and writes the results."""
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
        cli_prog_name="evoquality-trainer",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        env_prefix="\0",
        use_attribute_docstrings=True,
    )

    evolve: CliSubCommand[Evolve]
    """Run evolution rounds against a running service."""
    evaluate: CliSubCommand[Evaluate]
    """Measure models on labelled benchmarks and compare them."""
    audit: CliSubCommand[Audit]
    """Measure the quality of a service's votes on labelled images."""
    report: CliSubCommand[Report]
    """Write the report of a run again."""


def app() -> None:
    """The console script."""
    in_sentences(lambda: CliApp.run_subcommand(parsed(Trainer)))


def parsed(settings: type[T]) -> T:
    """The settings from the command line and the environment: the one place where a person's input is parsed.

    Raises:
        UserError: a setting is missing or has a value that it cannot have.
    """
    try:
        return CliApp.run(settings)
    except ValidationError as error:
        raise UserError("; ".join(map(_sentence, error.errors()))) from None
    except SettingsError as error:
        raise UserError(f"a setting cannot be read: {error}") from None


def in_sentences(work: Callable[[], object]) -> None:
    """Runs `work` until it is done or a signal comes, and exits with a sentence and the code of a TrainerError.

    What the service's own modules refuse here, a key file or the version store, a person must mend too.

    Any other exception propagates: Python shows its traceback and exits with 1.
    """
    termination.listen()
    with any_terminal():
        _ended_in_sentences(work)


def _ended_in_sentences(work: Callable[[], object]) -> None:
    try:
        work()
    except Terminated as end:
        _stop(end.exit_code, f"ended by {end.signal}; start it again to go on")
    except TrainerError as error:
        _stop(error.exit_code, str(error))
    except (ServicesUserError, UnknownVersion, VersionError, ReadOnlyStore) as error:
        _stop(UserError.exit_code, str(error))
    except httpx.InvalidURL as error:
        _stop(UserError.exit_code, str(error))
    except (ServiceError, httpx.TransportError) as error:
        ended = _from_the_service(error)
        _stop(ended.exit_code, str(ended))


def _sentence(problem: ErrorDetails) -> str:
    """The wrong flag and the reason. `loc` is (subcommand, field), or (subcommand,) for several fields at once."""
    reason = problem["msg"].removeprefix("Value error, ")
    if len(problem["loc"]) == 1:
        return reason
    flag = f"--{problem['loc'][1]}".replace("_", "-")
    return f"{flag} is required" if problem["type"] == "missing" else f"{flag}: {reason}"


def _from_the_service(error: ServiceError | httpx.TransportError) -> TrainerError:
    """The place in the error tree of a failure that the client reports."""
    if isinstance(error, httpx.TransportError):
        return Unreachable(
            f"the service cannot be reached ({error}); is it running, and are its addresses right? What is done is "
            "kept: start it again to go on"
        )
    problem = error.problem
    if problem.code == "unreadable_answer":
        return UserError(problem.detail)
    if problem.status >= 500 or problem.status in {408, 429} or problem.code == "version_conflict":
        return RefusedForNow(f"the service refused a request for now ({error}); start it again")
    return Refused(f"the service refused a request ({error}) and will refuse it again; correct that first")


def _stop(code: int, sentence: str) -> NoReturn:
    console = Console(stderr=True, soft_wrap=True, markup=False)  # a sentence may name an extra in brackets
    console.print(f"evoquality-trainer: {sentence}", style="red", highlight=False)
    sys.exit(code)


if __name__ == "__main__":
    app()
