"""The verb `published`: the paper's figures and table from its runs, as printed and corrected.

The scripts' definitions (specification section 4.3): means over the steps after the first, ratios
of means. Corrections (section 4.4): figure 8's 33B/7B bar on orion is a run without the switch, so
figure 11's proper run stands in; table 3 has a copied and two edited logs, so their twins do.
"""

from typing import NamedTuple

from common.artifact import Ask, Case, Done
from common.record import Metric
from puzzle.paper.published import PublishedRun, published_runs, table

CLUSTERS = ("orion", "phoenix")


class Bar(NamedTuple):
    """One published bar, seconds; `corrected` differs where the log is not what its name says."""

    cluster: str
    pair: str
    system: str
    printed: float
    corrected: float

    @property
    def key(self) -> str:
        """Name of the bar in metrics."""
        return f"{self.cluster}-{self.pair.lower().replace('/', '-')}"


def _of(figure: str, variant: str) -> list[PublishedRun]:
    return [r for r in published_runs() if (r.figure, r.variant) == (figure, variant)]


def _run(figure: str, cluster: str, pair: str, variant: str) -> PublishedRun:
    (found,) = [r for r in _of(figure, variant) if (r.cluster, r.pair) == (cluster, pair)]
    return found


def figure_8() -> list[Bar]:
    """Return step times: DS-Chat, PUZZLE-Base, PUZZLE."""
    names = {"dschat": "DS-Chat", "base": "PUZZLE-Base", "opt": "PUZZLE"}
    bars = []
    for variant, system in names.items():
        for run in _of("figure8", variant):
            corrected = run.step_s
            if run.generation_layout is None and variant == "opt":
                corrected = _run("figure11", run.cluster, run.pair, "opt").step_s
            bars.append(Bar(run.cluster, run.pair, system, run.step_s, corrected))
    return bars


def figure_9() -> list[Bar]:
    """Return the training stage's times, sequential and merged."""
    names = {"wo_bulk": "sequential", "w_bulk": "merged"}
    return [
        Bar(run.cluster, run.pair, system, run.training_s, run.training_s)
        for variant, system in names.items()
        for run in _of("figure9", variant)
    ]


class Cell(NamedTuple):
    """One cell of figure 10: ratio of training times sequential to merged."""

    actor: str
    critic: str
    batch: int
    layout: tuple[int, int, int]
    sequential_s: float
    merged_s: float
    error_bar: float
    constant: float
    """What the plotting script calls theoretical."""
    equal_cost: float
    """2 (m + P - 1) / (2 m + P - 1)."""

    @property
    def ratio(self) -> float:
        """Published gain."""
        return self.sequential_s / self.merged_s

    @property
    def experiment(self) -> str:
        """Name of the experiment that predicts the cell."""
        return f"ts-{self.actor}-{self.critic}-{self.batch}-{'-'.join(map(str, self.layout))}"


def figure_10() -> list[Cell]:
    """Return all cells in the paper's order."""
    cells = []
    for row in table("published_figure10.csv"):
        p, d, t = int(row["pp"]), int(row["dp"]), int(row["tp"])
        batch = int(row["global_batch"])
        times = {}
        for mode in ("wo", "w"):
            variant = f"{batch}_{p}_{d}_{t}_{mode}_bulk"
            pair = f"{row['actor']}/{row['critic']}".upper()
            times[mode] = _run("figure10", "orion", pair, variant).training_s
        m = batch // d // 4
        cells.append(
            Cell(
                actor=row["actor"],
                critic=row["critic"],
                batch=batch,
                layout=(p, d, t),
                sequential_s=times["wo"],
                merged_s=times["w"],
                error_bar=float(row["error_bar"]),
                constant=float(row["theoretical_hardcoded"]),
                equal_cost=2 * (m + p - 1) / (2 * m + p - 1),
            )
        )
    return cells


def figure_11() -> list[Bar]:
    """Return step times: the training layout throughout, the generation layout, and the switch."""
    names = {"train_opt": "train-opt", "gen_opt": "gen-opt", "opt": "PUZZLE"}
    return [
        Bar(run.cluster, run.pair, system, run.step_s, run.step_s)
        for variant, system in names.items()
        for run in _of("figure11", variant)
    ]


def figure_12() -> list[dict[str, str]]:
    """Return the parts of a step for 7B/7B, as plotted and corrected."""
    return table("published_figure12.csv")


def table_3() -> list[Bar]:
    """Return switch times: PUZZLE's and DeepSpeed-Chat's gather."""
    bars = []
    for run in (*_of("table3", "opt"), *_of("table3", "dschat")):
        assert run.switch_s is not None
        system = "DS-Chat" if run.layout is None else "PUZZLE"
        if run.cluster == "orion" and run.pair == "7B/350M":
            continue  # the file that figure 12's 7B/7B entry was copied from
        bars.append(Bar(run.cluster, run.pair, system, run.switch_s, _twin(run)))
    return bars


def _twin(run: PublishedRun) -> float:
    """Return the switch time of the same run elsewhere, where table 3's log is a copy or edited."""
    assert run.switch_s is not None
    if run.layout is None or run.cluster != "orion":
        return run.switch_s
    source = "figure12" if run.pair == "7B/7B" else "figure8"
    found = _run("figure11" if run.pair == "33B/7B" else source, "orion", run.pair, "opt")
    assert found.switch_s is not None
    return found.switch_s


def published(case: Case, ask: Ask) -> Done:
    """Compute the paper's figures from the published runs, faults of the logs mended."""
    metrics = published_metrics()
    return Done(summary=f"{len(metrics)} published figures", metrics=metrics)


def published_metrics() -> tuple[Metric, ...]:
    """Return all figures as metrics: ratios, and seconds."""
    made: list[Metric] = []
    for name, bars, one in (
        ("figure8", figure_8(), "DS-Chat"),
        ("figure9", figure_9(), "sequential"),
        ("figure11", figure_11(), "train-opt"),
    ):
        reference = {bar.key: bar.corrected for bar in bars if bar.system == one}
        for bar in bars:
            stem = f"{name}.{bar.key}.{bar.system}"
            made.append(Metric(name=f"{stem}.time", value=bar.corrected, unit="s"))
            ratio = reference[bar.key] / bar.corrected
            made.append(Metric(name=f"{stem}.gain", value=ratio, unit="1"))
    made += [
        Metric(name=f"figure10.{cell.experiment}.gain", value=cell.ratio, unit="1")
        for cell in figure_10()
    ]
    for row in figure_12():
        stem = f"figure12.{row['cluster']}.{row['system']}.{row['component']}"
        made.append(Metric(name=stem, value=float(row["seconds_corrected"]), unit="s"))
    for bar in table_3():
        stem = f"table3.{bar.key}.{bar.system}"
        made.append(Metric(name=stem, value=bar.corrected, unit="s"))
    return tuple(made)
