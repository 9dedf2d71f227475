"""``spatialconv study``: one file a command."""

from __future__ import annotations

import typer

from . import check, count, equivariance, field, lesson, page, record, reuse, roofline, sweep, trace, warp

HELP = """See how weight sharing becomes memory access, and what a convolutional network can and cannot see.

A shape is written `1x64x28x28 k=64 3x3 s1 p1`, with `d2`, `g64`, `nhwc`, `bf16` where wanted, or as problems are
printed elsewhere. Every command takes `--json FILE` (`-` for the terminal), and those that draw take `--out DIR`.
"""

app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False)

app.command(help=check.HELP)(check.check)
app.command(help=count.HELP)(count.count)
app.command(help=equivariance.HELP)(equivariance.equivariance)
app.command(help=field.HELP)(field.field)
app.command(help=lesson.HELP)(lesson.lesson)
app.command(help=page.HELP)(page.page)
app.command(help=record.HELP)(record.record)
app.command(help=reuse.HELP)(reuse.reuse)
app.command(help=roofline.HELP)(roofline.roofline)
app.command(help=sweep.HELP)(sweep.sweep)
app.command(help=trace.HELP)(trace.trace)
app.command(help=warp.HELP)(warp.warp)
