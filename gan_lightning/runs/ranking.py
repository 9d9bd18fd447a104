"""Which run was best: the runs below a folder, those that differ in their seed alone as one row, as tables."""

from __future__ import annotations

import base64
import csv
import difflib
import html
import io
import logging
import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import OmegaConf

from gan_lightning.files import BYTES, shorten, written_whole
from gan_lightning.metrics.better import direction_of
from gan_lightning.runs.folder import read_config, typed_overrides
from gan_lightning.runs.identity import setting
from gan_lightning.runs.state import STATES, RunState, run_seconds, run_state
from gan_lightning.runs.typed import rerun_command
from gan_lightning.terminal import format_seconds, printer

if TYPE_CHECKING:
    from rich.table import Table

log = logging.getLogger(__name__)

SWEEP_LOG = "sweep.log"  # in a sweep's folder
THUMBNAIL = 160  # pixels, width of a picture in the HTML table


@dataclass(frozen=True)
class Run:
    """A run on disk.

    Args:
        folder: of the run.
        state: what has become of it.
        score: the metric that is asked for; None where there is none yet.
        seconds: that it took.
        seed: of the run.
        settings: what was typed for it, but the seed.
        command: that repeats it.
    """

    folder: Path
    state: RunState
    score: float | None
    seconds: float | None
    seed: Any
    settings: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed alone.

    Args:
        runs: at least one, the best first.
        mean: of the scores of those that are done; None where none is.
        std: of the same, with n - 1; None of fewer than two.
        settings: what was typed for them and not for all others.
    """

    runs: list[Run]
    mean: float | None
    std: float | None
    settings: tuple[str, ...]

    @property
    def state(self) -> str:
        """What has become of the runs: `done`, or `2 done, 1 failed`."""
        names = [run.state.name for run in self.runs]
        counts = {name: names.count(name) for name in STATES if name in names}
        if len(counts) == 1:
            return names[0]
        return ", ".join(f"{count} {name}" for name, count in counts.items())

    @property
    def error(self) -> str:
        return next((run.state.error for run in self.runs if run.state.error), "")

    @property
    def seconds(self) -> float:
        return sum(run.seconds or 0 for run in self.runs)

    @property
    def score(self) -> str:
        """`2.4131 ± 0.0912 (3)`: mean, standard deviation, number of seeds."""
        if self.mean is None:
            return ""
        count = len({run.seed for run in self.runs if run.state.name == "done" and run.score is not None})
        return f"{self.mean:.4f}" + (f" ± {self.std:.4f} ({count})" if self.std is not None else "")


def rank_runs(folder: Path, metric: str, direction: str | None = None) -> list[Row]:
    """Every run below a folder, the best first.

    Args:
        metric: of metrics.json.
        direction: minimize | maximize; None: as the metric asks.

    Raises:
        ValueError: for another direction.
    """
    sign = 1 if direction_of(metric, direction) == "minimize" else -1
    groups: dict[str, list[Run]] = {}
    for file in sorted(folder.glob("**/.hydra/config.yaml")):
        try:
            config = read_config(file)
            if OmegaConf.select(config, "trainer.fast_dev_run"):  # a trial of the code, not a run
                continue
            content = cast(dict[Any, Any], OmegaConf.to_container(config))
            seed, key = content.get("seed"), repr(sorted(setting(content).items()))
            run = read_run(file.parent.parent, repr(seed) if isinstance(seed, list | dict) else seed, metric)
        except (OSError, ValueError) as error:  # a disk that was full, a run of others: one must not cost the table
            log.warning("%s is left out: %s", shorten(file.parent.parent), " ".join(str(error).split()))
            continue
        groups.setdefault(key, []).append(run)
    common = set.intersection(*(set(run.settings) for runs in groups.values() for run in runs)) if groups else set()
    rows = [as_row(runs, sign, common) for runs in groups.values()]
    return sorted(
        rows, key=lambda row: (row.mean is None, sign * (row.mean or 0), STATES.index(row.runs[0].state.name))
    )


def read_run(folder: Path, seed: Any, metric: str) -> Run:
    state = run_state(folder)
    typed, command = typed_overrides(folder), state.metrics.get("command")
    return Run(
        folder=folder,
        state=state,
        score=state.score(metric),
        seconds=run_seconds(folder, state),
        seed=seed,
        settings=tuple(override for override in typed if not override.startswith("seed=")),
        command=command if isinstance(command, str) else rerun_command(typed),
    )


def as_row(runs: list[Run], sign: int, common: set[str]) -> Row:
    runs = sorted(runs, key=lambda run: (run.score is None, sign * (run.score or 0), STATES.index(run.state.name)))
    by_seed = {run.seed: run.score for run in runs if run.state.name == "done" and run.score is not None}
    scores = list(by_seed.values())
    return Row(
        runs=runs,
        mean=statistics.fmean(scores) if scores else None,
        std=statistics.stdev(scores) if len(scores) > 1 else None,
        settings=tuple(word for word in runs[0].settings if word not in common),
    )


def check_metric(rows: list[Row], metric: str) -> None:
    """Raises ValueError if no run that is done has such a metric."""
    done = [run for row in rows for run in row.runs if run.state.name == "done"]
    if done and all(run.score is None for run in done):
        known = done[0].state.numbers
        near = difflib.get_close_matches(metric, known, n=1) or [key for key in known if key.endswith(f"/{metric}")]
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}"
        raise ValueError(f"metric={metric}: no run has it; {hint}")


def show(rows: list[Row], metric: str, out: Path, title: str, most: int = 10) -> list[Path]:
    """Write all rows to files in `out`, which are returned, and print the first ones."""
    files = [out / "leaderboard.csv", out / "leaderboard.html"]
    write_csv(rows, files[0], metric)
    write_html(rows, files[1], metric, title)
    printer().print(terminal_table(rows, metric, most))
    return files


# --- Tables ------------------------------------------------------------------------------------------------


def terminal_table(rows: list[Row], metric: str, most: int = 10) -> Table:
    """The first rows for a terminal."""
    from rich.table import Table
    from rich.text import Text

    left = f"{len(rows) - most} more are in leaderboard.csv and .html" if len(rows) > most else None
    title = f"{count(rows, 'setting')}, by {metric}, the best first"
    table = Table(title=title, caption=left, title_justify="left", caption_justify="left")
    for heading in ("", metric, "state", "time", "settings", "folder"):
        table.add_column(heading, overflow="fold", justify="right" if heading in ("", "time") else "left")
    for place, row in enumerate(rows[:most], start=1):
        what = f"{row.state}: {row.error}" if row.error else row.state
        folder = shorten(row.runs[0].folder)
        cells = (place, row.score, what, format_seconds(row.seconds), shorten_numbers(" ".join(row.settings)), folder)
        table.add_row(*(Text(str(cell)) for cell in cells))  # not markup: [relu,tanh] is no style
    return table


def count(things: list[Any], name: str) -> str:
    return f"{len(things)} {name}" + "s" * (len(things) != 1)


def shorten_numbers(settings: str) -> str:
    """`lr=0.00044303752452182633` -> `lr=0.000443`: what a reader needs; the commands have all digits."""
    return re.sub(r"\d+\.\d{4,}(e-?\d+)?", lambda number: f"{float(number[0]):.3g}", settings) or "-"


def write_csv(rows: list[Row], file: Path, metric: str) -> None:
    """A line for each run, with its row's place, mean and standard deviation."""
    headings = ("place", metric, "mean", "std", "state", "error", "seconds", "seed", "settings", "folder", "command")
    with written_whole(file) as part, part.open("w", newline="", encoding="utf-8", errors=BYTES) as out:
        lines = csv.writer(out)
        lines.writerow(headings)
        for place, row in enumerate(rows, start=1):
            for run in row.runs:
                seconds = None if run.seconds is None else round(run.seconds, 1)
                known = (run.score, row.mean, row.std, run.state.name, run.state.error, seconds, run.seed)
                lines.writerow(
                    [place, *("" if x is None else x for x in known), " ".join(row.settings), run.folder, run.command]
                )


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px system-ui, sans-serif; margin: 2em; color: #222 }}
table {{ border-collapse: collapse }}
th, td {{ padding: .5em .8em; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }}
td.settings {{ max-width: 34em; overflow-wrap: anywhere }}
tr:first-child td {{ font-weight: 600 }}
.failed, .killed {{ color: #b00020 }}
code {{ font-size: 12px; overflow-wrap: anywhere }}
img {{ image-rendering: pixelated; display: block }}
summary {{ cursor: pointer; font-weight: 400 }}
</style></head><body><h1>{title}</h1><p>{summary}</p>
<table><thead><tr><th></th><th>samples</th><th>{metric}</th><th>state</th><th>time</th><th>settings</th>
<th>runs</th></tr></thead><tbody>
{rows}
</tbody></table></body></html>
"""


def write_html(rows: list[Row], file: Path, metric: str, title: str) -> None:
    """One file that holds all it shows: a row for each setting, with samples of its best run."""
    runs = [run for row in rows for run in row.runs]
    summary = f"{count(runs, 'run')} of {count(rows, 'setting')}, the best first, by {metric}"
    lines = [html_row(place, row) for place, row in enumerate(rows, start=1)]
    words = {"title": html.escape(title), "summary": html.escape(summary), "metric": html.escape(metric)}
    with written_whole(file) as part:
        part.write_text(PAGE.format(rows="\n".join(lines), **words), encoding="utf-8", errors=BYTES)


def html_row(place: int, row: Row) -> str:
    state = html.escape(f"{row.state}: {row.error}" if row.error else row.state)
    runs = "".join(
        f"<p>{html.escape(str(run.folder))}<br>{html.escape(f'seed {run.seed}, {run.state.name}')}"
        f"{'' if run.score is None else f', {run.score:.4f}'}<br><code>{html.escape(run.command)}</code></p>"
        for run in row.runs
    )
    settings = "<br>".join(html.escape(shorten_numbers(word)) for word in row.settings) or "-"
    return (
        f'<tr><td class="number">{place}</td><td>{thumbnail(row.runs)}</td>'
        f'<td class="number">{html.escape(row.score)}</td>'
        f'<td class="{row.runs[0].state.name}">{state}</td><td class="number">{format_seconds(row.seconds)}</td>'
        f'<td class="settings"><code>{settings}</code></td>'
        f"<td><details><summary>{len(row.runs)}</summary>{runs}</details></td></tr>"
    )


def thumbnail(runs: Iterable[Run]) -> str:
    """The last samples of the first run that has some, as part of the page."""
    from PIL import Image

    data = io.BytesIO()
    for picture in (file for run in runs for file in sorted((run.folder / "samples").glob("epoch_*.png"))[-1:]):
        try:
            with Image.open(picture) as image:
                small = image.convert("L" if image.mode == "L" else "RGB")
        except Exception:  # Pillow raises many kinds: of a run that was killed while it wrote, or no picture
            continue
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        small.save(data, "PNG", optimize=True)
        break
    else:
        return ""
    text = base64.b64encode(data.getvalue()).decode()
    return f'<img width="{small.width}" height="{small.height}" alt="samples" src="data:image/png;base64,{text}">'
