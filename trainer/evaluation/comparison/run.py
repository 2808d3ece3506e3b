"""`evoquality-trainer evaluate`: scores missing images, compares the models, and writes page, tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from evoquality import Client
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.benchmarks.load import load_all
from trainer.evaluation.comparison import tables
from trainer.evaluation.comparison.comparison import Bootstrap, Comparison, compare
from trainer.evaluation.comparison.page import render
from trainer.evaluation.comparison.tables import show
from trainer.evaluation.evaluate import Evaluation, measured, record
from trainer.evaluation.models import Model, find
from trainer.evaluation.predictions import Predictions, ask, check_all
from trainer.files import write_json, write_text
from trainer.leftovers import folder_lock
from trainer.progress import Stages
from trainer.settings.evaluate import EvaluateSettings


def run(settings: EvaluateSettings) -> Comparison:
    """Runs the command.

    Raises:
        UserError: wrong benchmarks or models, predictions with other settings (see `Predictions`), or a service started
            here did not become ready.
        Occupied: another evaluation works in the folder.
        ServiceError, TransportError: see `ask`.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    with folder_lock(settings.out):
        return _run(settings)


def _run(settings: EvaluateSettings) -> Comparison:
    benchmarks = load_all(settings.benchmarks, settings.split, seed=settings.seed)
    key = settings.operator_key() if settings.record else None
    stages, bootstrap = Stages(), Bootstrap(settings.level, settings.resamples, settings.seed)
    models = [find(name, settings) for name in dict.fromkeys(settings.models)]
    evaluations = {model.name: evaluated(model, benchmarks, stages) for model in models}
    with stages.stage("intervals and tests", total=len(models) * len(benchmarks), unit="sets") as advance:
        found = compare(benchmarks, evaluations, bootstrap, advance)
    with stages.stage("page and tables", total=None):
        write(found, settings.out)
    show(found, Console())
    stages.say(f"wrote {settings.out}/index.html, table.md, table.tex, results.csv and results.json")
    if key:
        _record(evaluations, settings, key, stages)
    return found


def evaluated(model: Model, benchmarks: Sequence[Benchmark], stages: Stages) -> Evaluation:
    """Evaluates a model. Scores only missing images; starts no service if none is missing."""
    settings, version = model.settings, model.version()
    kept = [Predictions(model.folder, benchmark.name) for benchmark in benchmarks]
    check_all(kept, settings.protocol, version, model.known())
    asked = [(one, there) for one, there in zip(benchmarks, kept, strict=True) if there.missing(one.ids)]
    if asked:
        with model.served(stages) as url:
            for benchmark, there in asked:
                missing, name = len(there.missing(benchmark.ids)), f"{model.name}: {benchmark.name}"
                with stages.stage(name, total=missing, unit="images") as advance:
                    ask(url, benchmark, settings.protocol, there, settings.key, settings.patience, advance)
    return measured(benchmarks, settings.protocol, model.folder)


def write(comparison: Comparison, out: Path) -> None:
    """Writes page, tables and figures."""
    write_text(out / "table.md", tables.markdown(comparison))
    write_text(out / "table.tex", tables.latex(comparison))
    write_text(out / "results.csv", tables.everything(comparison).to_csv(index=False))
    write_json(out / "results.json", comparison.as_dict())
    write_text(out / "index.html", render(comparison))


def _record(evaluations: Mapping[str, Evaluation], settings: EvaluateSettings, key: str, stages: Stages) -> None:
    """Records the results of versions that the service lists."""
    with Client(settings.service, settings.key) as public, Client(settings.operators[0], key) as operator:
        listed = {version.id for version in public.versions().versions}
        for model, evaluation in evaluations.items():
            if evaluation.version in listed:
                record(evaluation, operator)
                stages.say(f"recorded beside version {evaluation.version}")
            else:
                stages.say(f"{model} was not recorded: the service lists no version {evaluation.version}")
