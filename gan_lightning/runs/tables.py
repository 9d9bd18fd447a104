"""The leaderboard as a person reads it: a table in the terminal, leaderboard.csv and leaderboard.html."""

from __future__ import annotations

import base64
import csv
import html
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_lightning.files import BYTES, shorten, written_whole
from gan_lightning.runs.ranking import Row, Run
from gan_lightning.terminal import format_seconds, printer

if TYPE_CHECKING:
    from rich.table import Table


def show(rows: list[Row], metric: str, out: Path, title: str, most: int = 10) -> list[Path]:
    """Write all rows to files in the folder `out`, print the first `most` of them, and return the files."""
    files = [out / "leaderboard.csv", out / "leaderboard.html"]
    write_csv(rows, files[0], metric)
    write_html(rows, files[1], metric, title)
    printer().print(terminal_table(rows, metric, most))
    return files


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
        table.add_row(*(Text(str(cell)) for cell in cells))  # not markup: [relu,tanh] would be taken for a style
    return table


def count(things: list[Any], name: str) -> str:
    return f"{len(things)} {name}" + "s" * (len(things) != 1)


def shorten_numbers(settings: str) -> str:
    """`lr=0.00044303752452182633` -> `lr=0.000443`: enough for a reader; the commands have all digits."""
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
                lines.writerow((place, *known, " ".join(row.settings), run.folder, run.command))  # None: empty


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
    """A page that needs no other file: a row for each setting, with samples of its best run."""
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
    """An <img> of the last samples of the first run that has any; empty without them."""
    from PIL import Image

    for picture in (file for run in runs for file in sorted((run.folder / "samples").glob("epoch_*.png"))[-1:]):
        try:
            with Image.open(picture) as image:
                small = image.convert("L" if image.mode == "L" else "RGB")
        except Exception:  # Pillow raises many kinds: a killed run leaves half a picture
            continue
        small.thumbnail((160, 160))  # pixels
        small.save(data := io.BytesIO(), "PNG", optimize=True)
        text = base64.b64encode(data.getvalue()).decode()
        return f'<img width="{small.width}" height="{small.height}" alt="samples" src="data:image/png;base64,{text}">'
    return ""
