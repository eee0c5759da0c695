"""The command line: one command per stage, in pipeline order; errors in one line."""

import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from pipeline import __version__
from pipeline.errors import PipelineError, did_you_mean

INTERRUPTED = 130
FIXES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "fix: free some space, then run it again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "fix: change its permissions, or run elsewhere"),
}
"""What helps against what the system refuses."""


class Command(NamedTuple):
    """A stage's help, and the sections of params.yaml that its NAME may be of (none: it takes no name)."""

    help: str
    sections: tuple[str, ...] = ()


COMMANDS = {
    "download": Command("Get a dataset and write it in the one form.", ("datasets",)),
    "augment": Command("Add augmented copies to a training split.", ("augmentations",)),
    "extract": Command("Run a frozen backbone over a dataset.", ("features",)),
    "train": Command("Train a run or a generator.", ("runs", "generators")),
    "predict": Command("Write a run's raw outputs, before any threshold.", ("runs",)),
    "evaluate": Command("Score predictions or samples, with pictures.", ("runs", "generators")),
    "sample": Command("Draw samples from a trained generator.", ("generators",)),
    "corrupt": Command("Score a run on corrupted images.", ("robustness",)),
    "search": Command("Search for the options of a run that do best.", ("searches",)),
    "visualise": Command("Show what a model looks at, or how features lie.", ("visualisations",)),
    "report": Command("Bring all reports together in one page."),
    "track": Command("Bring MLflow up to date with the reports."),
}

app = typer.Typer(
    help="From raw images to a judged report. `dvc repro` runs these commands in order, and only what changed.",
    epilog="Choices are made in params.yaml; the graph of stages is in dvc.yaml.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def _add(verb: str, command: Command) -> None:
    where = " or ".join(command.sections)

    def run_named(name: Annotated[str, typer.Argument(help=f"An entry of {where} in params.yaml.")]) -> None:
        _run(verb, name)

    def run_all() -> None:
        _run(verb, None)

    run: Callable[..., None] = run_named if command.sections else run_all
    app.command(verb, help=command.help)(run)


def _run(verb: str, name: str | None) -> None:
    from pipeline.launch import run_stage

    run_stage(verb, name, COMMANDS[verb].sections)


for _verb, _command in COMMANDS.items():
    _add(_verb, _command)


# Tools: commands that are no stages of the graph.


@app.command("repro", help="Run what changed, as `dvc repro` does, on all cores and GPUs.")
def _repro(
    targets: Annotated[
        list[str] | None, typer.Argument(help="Stages, groups of stages or outputs; all without.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Most stages at once; as many as fit without it.")
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", "-k", help="After a failure run all that does not depend on it.")
    ] = False,
    oversubscribe: Annotated[bool, typer.Option(help="Do not count the threads and memory of stages.")] = False,
    gpu_jobs: Annotated[int, typer.Option(min=1, help="Stages that may share a GPU.")] = 1,
) -> None:
    from pipeline.scheduling import command

    code = command.run(targets or [], jobs=jobs, keep_going=keep_going, oversubscribe=oversubscribe, gpu_jobs=gpu_jobs)
    raise typer.Exit(code)


@app.command("lint", help="Hold dvc.yaml against the code and params.yaml.")
def _lint(
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove from reports/ and dvc.lock what belongs to removed runs.")
    ] = False,
) -> None:
    from pipeline.lint import command

    raise typer.Exit(command.run(prune=prune))


@app.command("check-run", help="Look at a run before it is trained: data, first loss, a few images, learning rates.")
def _check_run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An entry of runs or generators in params.yaml.")],
    picture: Annotated[Path | None, typer.Option(help="Draw the sweep over learning rates into this PNG.")] = None,
) -> None:
    from pipeline.checks import command

    lines, is_right = command.check_run(name, picture)
    typer.echo("\n".join(lines))
    raise typer.Exit(0 if is_right else 1)


@app.command("check-gradients", help="Hold a run's backward pass against numeric gradients, layer by layer.")
def _check_gradients(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An entry of runs or generators in params.yaml.")],
    entries: Annotated[int, typer.Option(min=1, max=10_000, help="Numbers of each tensor to look at.")] = 2,
    images: Annotated[int, typer.Option(min=1, max=1024, help="Images of the batch.")] = 4,
) -> None:
    from pipeline.checks import command

    lines, is_right = command.check_gradients(name, entries, images)
    typer.echo("\n".join(lines))
    raise typer.Exit(0 if is_right else 1)


@app.command("cost", help="Say what stages cost in time and memory, or what changed in it between two commits.")
def _cost(
    base: Annotated[str | None, typer.Argument(help="A git revision; without it, the last runs.")] = None,
    head: Annotated[str | None, typer.Argument(help="Another; without it, the last runs.")] = None,
) -> None:
    from pipeline import cost

    for line in cost.table(base, head):
        typer.echo(line)


@app.command(
    "verify", help="Recompute the hash of all cached objects and outputs, and say how to repair what is wrong."
)
def _verify(
    committed: Annotated[
        bool, typer.Option("--committed", help="Look at what git has at HEAD alone, which needs no data.")
    ] = False,
) -> None:
    from pipeline.trust import verify

    raise typer.Exit(verify.run(committed=committed))


@app.command("doctor", help="Tell versions, devices, threads, determinism, caches and whether the lock is installed.")
def _doctor() -> None:
    from pipeline.trust import doctor

    raise typer.Exit(doctor.run())


@app.command("complexity", help="Print what each layer of a run's network costs and sees; nothing need be trained.")
def _complexity(
    run: Annotated[str, typer.Argument(help="An entry of runs in params.yaml.")],
    image_size: Annotated[
        int | None, typer.Option(min=1, max=8192, help="Height and width of the images; those of the run without it.")
    ] = None,
) -> None:
    from pipeline.params import load
    from pipeline.visualise import cost_table

    for line in cost_table.lines(cost_table.of_run(load(), run, image_size)):
        typer.echo(line)


@app.command("compare", help="Say what changed between two states of the project, and whether it is real.")
def _compare(
    base: Annotated[str, typer.Argument(help="A git revision, a DVC experiment or `workspace`.")],
    head: Annotated[str | None, typer.Argument(help="The same; the workspace without it.")] = None,
    runs: Annotated[
        tuple[str, str] | None, typer.Option(metavar="A B", help="Compare two runs of BASE instead of two states.")
    ] = None,
    md: Annotated[Path | None, typer.Option(help="Write a comment for a pull request.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page that opens offline.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything as JSON.")] = None,
    link: Annotated[
        str | None, typer.Option(help="Address of a file with {commit} and {path}: links pictures in --md.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=100, max=100_000, help="Of bootstrap and permutation test.")] = 1000,
) -> None:
    from pipeline.reporting.compare import command

    code = command.run(base, head, runs=runs, num_resamples=resamples, md=md, html=html, as_json=json, link=link)
    raise typer.Exit(code)


@app.command("history", help="Show a metric of a run over the commits that changed it.")
def _history(
    metric: Annotated[str, typer.Argument(help="A name in metrics.json, such as `map50`.")],
    run: Annotated[str, typer.Argument(help="A run or a generator.")],
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Commits to look back.")] = 200,
    out: Annotated[Path | None, typer.Option(help="Draw it into this PNG.")] = None,
) -> None:
    from pipeline.reporting import history

    history.run(metric, run, limit=limit, out=out)


@app.command("merge-lock", help="Merge three versions of dvc.lock: git calls it, see .gitattributes.")
def _merge_lock(
    base: Annotated[Path, typer.Argument(help="The common ancestor's.")],
    ours: Annotated[Path, typer.Argument(help="Ours; the merged one is written here.")],
    theirs: Annotated[Path, typer.Argument(help="Theirs.")],
) -> None:
    from pipeline.lock import merge_files

    dropped = merge_files(base, ours, theirs)
    if dropped:
        typer.echo(f"dvc.lock: changed on both sides, run anew by dvc repro: {', '.join(dropped)}", err=True)


@app.command("score", help="Score predictions in files of COCO, VOC or YOLO, label maps or tables against the truth.")
def _score(
    truth: Annotated[Path, typer.Option(help="A file or folder of truth.")],
    predictions: Annotated[Path, typer.Option(help="A file or folder of predictions.")],
    task: Annotated[
        str, typer.Option(help="detection, instance, keypoints, semantic, panoptic, classification or captions.")
    ],
    form: Annotated[
        str | None, typer.Option("--format", help="coco, voc or yolo; without it, as the truth looks.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="The folder of images.")] = None,
    classes: Annotated[
        Path | None, typer.Option(help="A file that names the classes: YOLO's data.yaml, or one name in each line.")
    ] = None,
    one_based: Annotated[bool, typer.Option(help="VOC: pixels count from 1, as in the devkit's own files.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write metrics.json, per_image.parquet and pictures here.")] = None,
) -> None:
    from pipeline.reporting.scoring import command

    command.run(truth, predictions, task, form=form, images=images, classes=classes, one_based=one_based, out=out)


@app.command("export", help="Write a dataset back as files of another tool's layout.")
def _export(
    name: Annotated[str, typer.Argument(help="An entry of datasets or augmentations in params.yaml.")],
    form: Annotated[str, typer.Option("--format", help="coco, voc, yolo, imagefolder, masks or csv.")],
    out: Annotated[Path | None, typer.Option(help="The folder to write; data/exports/NAME_FORMAT without it.")] = None,
) -> None:
    from pipeline.data import export
    from pipeline.params import load

    for line in export.run(load(), name, form, out):
        typer.echo(line)


@app.command("explain-metric", help="Tell how a number of a report came about, and what other dialects would say.")
def _explain_metric(
    run: Annotated[str, typer.Argument(help="A run or a generator.")],
    metric: Annotated[str, typer.Argument(help="A name in its metrics.json, such as `map50`.")],
) -> None:
    from pipeline.params import load
    from pipeline.reporting.explain import command

    command.run(load(), run, metric)


def _names() -> list[str]:
    """Of all commands."""
    return [str(command.name) for command in app.registered_commands]


def main(arguments: Sequence[str]) -> int:
    """Runs the command line and returns its exit code; `--debug` may stand anywhere."""
    debug = "--debug" in arguments
    try:
        command = typer.main.get_command(app)
        code = command.main([a for a in arguments if a != "--debug"], prog_name="pipeline", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # Typer has turned a KeyboardInterrupt into it
            return _fail("interrupted", INTERRUPTED)
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
        return 1
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _fail(*_explain(error))


def _explain(error: Exception) -> tuple[str, int]:
    """The message and exit code of an error: the user's, the system's, or a bug."""
    if isinstance(error, PipelineError):
        return str(error), error.exit_code
    if hasattr(error, "format_message"):  # of the command line itself
        message = str(error.format_message()).rstrip(".")
        if match := re.match("No such command '(.*?)'", message):
            return f"no such command {match[1]!r}; {did_you_mean(match[1], _names())}", 2
        return f"{message}; fix: see --help", 2
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}; {FIXES.get(error.errno or 0, 'rerun with --debug for the traceback')}", 1
    if isinstance(error, MemoryError):
        return f"not enough memory ({error}); fix: a smaller batch_size or image_size, or fewer jobs at once", 1
    return f"{type(error).__name__}: {error}; this is a bug; rerun with --debug for the traceback", 1


def _fail(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code
