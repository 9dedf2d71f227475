"""What ``spatialconv bench`` does once its options are understood: measure with a progress bar, store, show."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..bench import class_table, plot, results, roofline, runner, table


def run(settings: runner.Settings, works, json_path: Path, plot_path: Path, resume: bool, compare: Path | None) -> bool:
    """Measure, write and show; whether every row is right and believable, and nothing became surely slower.

    Ctrl-C ends the measuring and not the run: what was measured is stored and shown.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    old = results.load(compare) if compare else None
    console.print(f"measuring this machine's peaks ({settings.threads} thread{'s' * (settings.threads > 1)})")
    limits = roofline.measure(set(settings.dtypes), settings.device)
    head = results.head(settings.as_dict(), limits.as_dict())
    store = results.Store(json_path, head, resume)
    _show_machine(console, head)
    bench = runner.Bench(settings, limits)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Refreshed between rows only: a thread that draws would disturb what is timed.
    with Progress(*columns, console=console, auto_refresh=False, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(works))
        stopped = False
        try:
            for number, work in enumerate(works, 1):
                name = f"{work.request} {table.short(str(work.cell.problem))}"
                progress.update(task, description=name[:58].ljust(58))
                progress.refresh()
                if not store.done(work.key):
                    store.add(bench.row(work))
                progress.advance(task)
                if not console.is_terminal and (number % 25 == 0 or work is works[-1]):
                    console.print(f"{number} of {len(works)} rows")
        except KeyboardInterrupt:
            stopped = True
        progress.update(task, description=("stopped" if stopped else "done").ljust(58))
        progress.refresh()
    store.head["roofline"] = bench.limits.as_dict()
    store.write()
    rows = [store.rows[work.key] for work in works if work.key in store.rows]
    console.print(table.report(rows, settings.peers, console.width))
    console.print(class_table.report(rows, settings.peers[0]))
    good = not stopped and all(row["status"] in ("ok", "refused") for row in rows)
    if old is not None:
        changes = results.compare(old["rows"], rows)
        console.print(table.changes_table(changes))
        good = good and not any(change.verdict == "slower" for change in changes)
    _draw(console, rows, settings, head, plot_path)
    console.print(f"results: {json_path.resolve()}", soft_wrap=True)
    if stopped:
        console.print(f"stopped at {len(rows)} of {len(works)} rows; the same command with --resume goes on")
    return good


def _show_machine(console: Console, head: dict) -> None:
    peak, copy = head["roofline"]["flops"], head["roofline"]["copy"]
    settings = head["settings"]
    rates = ", ".join(f"{dtype} {rate / 1e9:.0f} GFLOP/s" for dtype, rate in peak.items())
    console.print(
        f"{head['machine']['cpu']}; torch {head['versions']['torch']}; spatialconv {head['versions']['spatialconv']}"
    )
    console.print(f"peak (best matrix product of torch): {rates}; copying {copy[-1][1] / 1e9:.1f} GB/s from memory")
    console.print(
        f"threads {settings['threads']}, clock {settings['clock']}, caches {settings['cache']}, "
        f"batch {settings['batch'] or 'of the suite'}, load average {head['load'][0]:.1f}"
    )
    if head["load"][0] > head["machine"]["cores"] / 2:
        console.print("[yellow]the machine is busy: figures below are less certain than their bounds say[/yellow]")


def _draw(console: Console, rows, settings: runner.Settings, head: dict, path: Path) -> None:
    threads = f"{settings.threads} thread{'s' * (settings.threads > 1)}"
    title = (
        f"{', '.join(settings.suites)}, n{settings.batch or ' of the suite'}, {threads}, "
        f"{head['machine']['cpu']}, torch {head['versions']['torch']}, {head['date'][:10]}"
    )
    try:
        console.print(f"picture: {plot.draw(rows, settings.peers[0], path, title).resolve()}", soft_wrap=True)
    except ImportError as error:
        console.print(f"no picture: {error} (extra 'all')")
