"""The command line: ``spatialconv bench | check | explain | info | report | study | tune``. Only a command imports
torch."""

from __future__ import annotations

import typer

from . import bench, check, explain, info, report, study, tune

app = typer.Typer(
    name="spatialconv",
    help="Convolution and pooling written several ways behind one dispatcher.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from .. import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: bool = typer.Option(
        False, "--version", help="Print the version and end.", callback=_version, is_eager=True
    ),
) -> None:
    """Convolution and pooling written several ways behind one dispatcher."""


app.command(help=bench.HELP)(bench.bench)
app.command(help=check.HELP)(check.check)
app.command(help=explain.HELP)(explain.explain)
app.command(help=info.HELP)(info.info)
app.command(help=report.HELP)(report.report)
app.add_typer(study.app, name="study", help=study.HELP)
app.command(help=tune.HELP)(tune.tune)
