"""`make tables`: writes the generated tables of all READMEs, and the plot of the demo, from `results/`.

    python -m tests.benchmarks.tables                       writes them
    python -m tests.benchmarks.tables --take runs/bench     first copies what `make bench` measured into `results/`
    python -m tests.benchmarks.tables --take runs/replicas  the same for `make replicas`

`make leaderboard` copies the figures of the last demo into `results/`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tests.benchmarks import sizes
from tests.benchmarks.ablations import summary as ablations
from tests.benchmarks.leaderboard import BASE, Leaderboard, demo_models, plot
from tests.benchmarks.markdown import Tables, fill, markdown, places
from tests.benchmarks.replicas import figures as followers
from trainer.files import read_json, write_text
from trainer.pricing.memory import pass_bytes
from trainer.reporting.vote_table import cells

RESULTS = Path(__file__).with_name("results")
READMES = tuple(map(Path, ("README.md", "tests/benchmarks/README.md", "k8s/README.md", "trainer/evaluation/README.md")))
TAKEN = ("serve.json", "train.json", "replicas.json", "gate.json")
PAPER = {
    "zero-shot": "paper:qwen2.5-vl-7b",
    "round 1": "paper:evoquality-round1",
    "round 2": "paper:evoquality-round2",
}
SIDES = {
    "direct": "(a) AsyncLLM called directly",
    "service": "(b) this service over HTTP",
    "vllm_serve": "(c) vLLM's server, base64, answers parsed by the client",
}
KINDS = {"k1": "1 sample", "k8": "8 samples", "expected": "expected"}
VOTES = {
    "stopped": "stopped when decided",
    "full": "all {votes}",
    "another_full": "all {votes} again",
    "exact": "exact probabilities",
}
TRAINED: dict[sizes.Kind, str] = {"lora": "LoRA", "full": "all weights"}
READS_BEFORE_A_SWAP = 2
"""A version's checks read its files twice before the swap: for their hashes, and for non-finite values."""


def proof() -> str:
    """The headline figures."""
    board, demo, serve, train = Leaderboard.load(), _result("demo"), _result("serve"), _result("train")
    last = list(demo_models(board).values())[-1]
    seen, rates = demo["traffic"], _rates(serve)
    blackouts = [1000 * max(change["blackout_seconds"].values()) for change in _result("replicas")["changes"]]
    against = rates["service", "k8", 64] / rates["vllm_serve", "k8", 64]
    rows = [
        ("weighted relative PLCC gain of the demo after two rounds", _percent(board.gain_percent(BASE, last))),
        (
            "requests during the demo",
            f"{seen['requests']}: {seen['failed']} failed, {seen['mixed_version_answers']} of mixed versions",
        ),
        (
            "longest blackout of a swap",
            f"{max(demo['blackout_ms']):.0f} ms; {max(blackouts):.0f} ms with three replicas on the same two cores",
        ),
        ("throughput against vLLM's own server, 8 samples an image", f"{against:.2f} times"),
        (
            "expected score against 8 samples from vLLM's own server",
            f"{serve['ratios']['expected_over_vllm_serve_k8']:.2f} times",
        ),
        ("a training step against TRL's GRPOTrainer", f"{train['ratios']['trl_over_ours_k8']:.1f} times as fast"),
        ("not run here", "any GPU, any 7B model"),
    ]
    return markdown(["what", "figure"], rows)


def by_set(models: Callable[[Leaderboard], Mapping[str, str]]) -> str:
    """Raw PLCC of models by benchmark, the base first, with the last one's gain and SRCC. Heading -> model."""
    board = Leaderboard.load()
    shown = models(board)
    names = list(shown.values())
    rows = [_set(board, names, benchmark) for benchmark in board.of(names[0])]
    heading = ["set", "images", *shown, "gain", f"SRCC, {list(shown)[-1]}"]
    return markdown(heading, [*rows, _weighted(board, names), _gains(board, names)])


def _set(board: Leaderboard, models: Sequence[str], benchmark: str) -> list[str]:
    plcc, srcc = [board.values(model)[benchmark] for model in models], board.values(models[-1], "srcc")[benchmark]
    images = str(board.of(models[-1])[benchmark].n)
    return [benchmark, images, *map(_correlation, plcc), _percent(100 * (plcc[-1] / plcc[0] - 1)), _correlation(srcc)]


def _weighted(board: Leaderboard, models: Sequence[str]) -> list[str]:
    plcc, srcc = [board.weighted(model) for model in models], board.weighted(models[-1], "srcc")
    images = str(sum(row.n for row in board.of(models[-1]).values()))
    gain = _percent(100 * (plcc[-1] / plcc[0] - 1))
    return ["**weighted**", images, *map(_correlation, plcc), gain, _correlation(srcc)]


def _gains(board: Leaderboard, models: Sequence[str]) -> list[str]:
    """The paper's headline: the weighted mean of the sets' gains, which exceeds the gain of the weighted mean."""
    gains = [board.gain_percent(models[0], model) for model in models[1:]]
    return ["**weighted gain**", "", "", *(f"**{_percent(gain)}**" for gain in gains), "", ""]


def pseudo_labels() -> str:
    """Quality of the demo's votes, one column per round."""
    found = {name: cells(figures) for name, figures in _result("demo")["votes"].items()}
    titles = next(iter(found.values()))
    return markdown(["", *found], [[title, *(of[title] for of in found.values())] for title in titles])


def serving() -> str:
    """Images per second (p50 / p99 in ms) of every side, by kind of request and number of clients."""
    table = _result("serve")["table"]
    measured = {(row["side"], row["kind"], row["callers"]): _rate(row) for row in table}
    clients = sorted({row["callers"] for row in table})
    heading = ["side", "asked for", *("1 client" if count == 1 else f"{count} clients" for count in clients)]
    rows = (
        [SIDES[side], KINDS[kind], *(measured[side, kind, count] for count in clients)]
        for side in SIDES
        for kind in KINDS
        if (side, kind, clients[0]) in measured
    )
    return markdown(heading, rows)


def training() -> str:
    """Seconds of passes and steps, and the ratio to the first side with the same workload."""
    table = _result("train")["table"]
    first = {row["what"]: row["seconds"] for row in reversed(table)}
    return markdown(
        ["side", "what", "seconds", "times"],
        ([row["side"], row["what"], *_seconds(row["seconds"], first[row["what"]])] for row in table),
    )


def votes() -> str:
    """Votes that a pair's label takes and its accuracy, against all votes at the same temperature."""
    found = _result("train")["votes"]
    rows = (
        [f"{name}: {label.format(votes=found['votes'])}", *_vote(found[name][way])]
        for name in sorted(name for name in found if name.startswith("temperature"))
        for way, label in VOTES.items()
    )
    return markdown(["", "votes a pair", "agreement", "where settled", "right"], rows)


def replicas() -> str:
    """Seconds that three replicas take to follow each move of the pointer."""
    return markdown(followers.HEADING, followers.rows(_result("replicas")))


def serving_sizes() -> str:
    """Engines: bytes, and for each GPU size the fewest GPUs with the number of full-length answers that fit."""
    heading = ["", "parameters", "weights", "keys and values of a token", "working", "adapters", *sizes.GPUS]
    return markdown(heading, ([name, *_serving_sizes(name)] for name in sizes.PUBLISHED))


def _serving_sizes(name: str) -> Iterator[str]:
    need = sizes.serving(name)
    yield f"{need.weights // 2:,}"
    yield _gib(need.weights)
    yield f"{need.token // 1024} KiB"
    yield _gib(need.working + need.graphs)
    yield _gib(need.adapters)
    for gib in sizes.GPUS.values():
        held = (
            (gpus, sizes.serving(name, gpus).sequences(gib * sizes.GIB, sizes.ENGINE)) for gpus in sizes.TENSOR_PARALLEL
        )
        yield next((f"{gpus} ({most})" for gpus, most in held if most), "–")


def training_sizes() -> str:
    """Trainers: bytes, and the fewest GPUs of each size."""
    states = "weights, gradients, moments, reference"
    heading = ["", "trained", states, "a pass", *sizes.GPUS, "host memory", "checkpoint"]
    rows = ([name, label, *_training_sizes(name, kind)] for name in sizes.PUBLISHED for kind, label in TRAINED.items())
    return markdown(heading, rows)


def _training_sizes(name: str, kind: sizes.Kind) -> Iterator[str]:
    need = sizes.training(name, kind)
    yield _gib(need.states)
    one = pass_bytes(sizes.shape(name), sizes.PASS_TOKENS, recompute=True)
    yield _gib(one)
    share = sizes.ENGINE.gpu_memory_utilization
    for gib in sizes.GPUS.values():
        fits = (str(count) for count in sizes.PROCESSES if need.on_each(count, one) <= share * gib * sizes.GIB)
        yield next(fits, "–")
    yield f"{_gib(need.loading)} a process"
    yield _gib(need.checkpoint)


def disk_sizes() -> str:
    """Versions: bytes on the volume, and bytes that a swap reads."""
    heading = [
        "",
        "a version",
        "after two rounds",
        "while a candidate is added",
        "read before a swap",
        "in its blackout",
    ]
    return markdown(heading, ([name, *_disk_sizes(sizes.serving(name).weights)] for name in sizes.PUBLISHED))


def _disk_sizes(version: int) -> Iterator[str]:
    yield from (_gb(version), _gb(3 * version), f"{_gb(2 * version)} more", _gb(READS_BEFORE_A_SWAP * version))
    yield f"{_gb(version)}, {version / 1e9:.0f} s at 1 GB/s"


def round_cost() -> str:
    """A round of 7B: counts, operations, and A100 hours at the share of the peak that the paper's hours amount to."""
    columns = read_json(sizes.COUNTED)["round_of_7b"]
    counts = {
        "pairs": "pairs",
        "votes (passes where exact)": "votes",
        "pictures in steps": "trained",
        "scores sampled": "rollouts",
    }
    rows = [[title, *(f"{of[name]:,}" for of in columns.values())] for title, name in counts.items()]
    rows += [
        [f"PFLOP of {name}", *(f"{of['petaflop'][name]:,.0f}" for of in columns.values())]
        for name in ("votes", "rollouts", "updates")
    ]
    return markdown(["", *columns], [*rows, ["A100 hours", *(f"{of['a100_hours']:.1f}" for of in columns.values())]])


def gate() -> str:
    """Both error rates of the gate's rules, over the shares of the errors that both versions have in common."""
    found = _result("gate")

    def rates(values: Sequence[float]) -> str:
        return " / ".join(f"{value:.0%}" for value in values)

    return markdown(
        ["pictures", "refused because of", "an equally good one is refused", f"one {found['loss']} worse passes"],
        (
            [str(row["pictures"]), row["rule"], rates(row["equal_refused"]), rates(row["worse_passed"])]
            for row in found["table"]
        ),
    )


def tables() -> Tables:
    """All tables by name; each published ablation is `ablation-NAME`."""
    return {
        "proof": proof,
        "demo": partial(by_set, demo_models),
        "paper": partial(by_set, lambda board: PAPER),
        "pseudo-labels": pseudo_labels,
        **{f"ablation-{name}": partial(ablations.table, name) for name in _result("ablations")["tables"]},
        "votes": votes,
        "gate": gate,
        "serving": serving,
        "replicas": replicas,
        "training": training,
        "serving-sizes": serving_sizes,
        "training-sizes": training_sizes,
        "disk-sizes": disk_sizes,
        "round-cost": round_cost,
    }


def main(
    take: Annotated[Path | None, typer.Option(help="Folder of results to copy into `results/` first.")] = None,
) -> None:
    """Writes every table into the READMEs that have a place for it."""
    if take:
        _take(take)
    known, console = tables(), Console()
    for readme in filter(Path.exists, READMES):
        text = readme.read_text(encoding="utf-8")
        if found := places(text):
            write_text(readme, fill(text, known))
            console.print(f"{readme}: {', '.join(found)}")
    write_text(RESULTS / "gain.svg", plot(Leaderboard.load()))


def _take(folder: Path) -> None:
    measured = [file for name in TAKEN if (file := folder / name).exists()]
    if not measured:
        raise typer.BadParameter(
            f"{folder} holds none of {', '.join(TAKEN)}: run `make bench` or `make replicas` first", param_hint="--take"
        )
    for file in measured:
        shutil.copy(file, RESULTS)


def _result(name: str) -> Any:
    return read_json(RESULTS / f"{name}.json")


def _rates(serve: Mapping[str, Any]) -> dict[tuple[str, str, int], float]:
    """(side, kind, clients) -> images per second."""
    return {(row["side"], row["kind"], row["callers"]): row["images_per_second"] for row in serve["table"]}


def _rate(row: Mapping[str, Any]) -> str:
    return f"{row['images_per_second']:.1f} ({row['p50_ms']:.0f} / {row['p99_ms']:.0f})"


def _seconds(seconds: float, first: float) -> Iterator[str]:
    yield f"{seconds:.3g}"
    yield f"{seconds / first:.1f}" if seconds != first else ""


def _vote(figures: Mapping[str, float]) -> Iterator[str]:
    yield f"{figures['votes_a_pair']:.3g} ({figures['per_pair_over_full']:.0%})"
    for name in ("agreement", "agreement_where_settled", "accuracy"):
        yield f"{100 * figures[name]:.1f} %"


def _correlation(value: float) -> str:
    return f"{value:.3f}"


def _percent(value: float) -> str:
    return f"{value:+.1f} %"


def _gib(size: float) -> str:
    return f"{size / sizes.GIB:,.1f} GiB"


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"


if __name__ == "__main__":
    typer.run(main)
