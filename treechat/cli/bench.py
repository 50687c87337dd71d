"""`bench`: measure this machine."""

from __future__ import annotations

import click

from treechat.cli.options import Session, json_option, model_option, pass_session
from treechat.cli.output import print_json, say, table

_PARTS = ("jump", "fork", "fan_out", "decode")


@click.command()
@model_option
@click.option("--quick", is_flag=True, help="Short prompts, one run each: a quick check.")
@click.option("--only", type=click.Choice(_PARTS), multiple=True, help="Measure only this part; may be repeated.")
@json_option
@pass_session
def bench(session: Session, quick: bool, only: tuple[str, ...], as_json: bool) -> None:
    """Measure the speed of this machine.

    Compares jumps and forks with a full prefill, siblings with single replies, and decoding with generate of
    transformers.
    """
    from treechat.cli.model_loading import ProgressLine, engine_config
    from treechat.errors import GenerationError, ModelError
    from treechat.models import resolve, silence_libraries
    from treechat_engine import EngineError

    with ProgressLine() as progress:
        files = resolve(session.model_spec, progress)
        silence_libraries()
        from treechat.bench import report, run, workload
        from treechat_engine import Engine

        try:
            engine = Engine.load(files.path, engine_config(session.config))
        except EngineError as error:
            raise ModelError(error.message, error.hint) from error
    sizes = workload.QUICK if quick else workload.Sizes()
    with engine:
        try:
            result = run.measure(engine, files.name, files.path, sizes, say, only or _PARTS)
        except EngineError as error:
            raise GenerationError(error.message, error.hint) from error
    if as_json:
        print_json(result)
    else:
        click.echo("\n".join(report.lines(result, table)))
