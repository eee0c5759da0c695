"""Runs a recipe in a copy of the project's commit and keeps what is small of its results beside the project's own.

    python .ci/zoo.py            recipes/zoo.yaml in build/zoo, kept in reports/zoo
    python .ci/zoo.py --note     the same; then the recipe's comments say what came of it

The copy stays, so that the next time only what changed is run. Standard library alone.
"""

import argparse
import filecmp
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

PROJECT = Path(__file__).parent.parent
NOT_COPIED = ("reports/", "params.yaml", "dvc.lock")
"""Files of the project that the copy has of its own."""
ORDINARY = ("predictions", "confusion", "calibration", "per_class", "agreement", "residuals")
"""Pictures that every run has, of which only the numbers are kept."""
MAX_PICTURE, MAX_TOTAL = 200_000, 3_000_000
"""Bytes, as reports/ may hold them in git."""
PLACES = ("data", "runs", "generators", "robustness", "visualise", "searches")


def copy(source: Path, target: Path, recipe: Path) -> None:
    """Brings a copy to the commit of the project and sets its params; its data, reports and dvc.lock stay."""
    if not (target / ".git").is_dir():
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "init", "-q"], cwd=target, check=True)  # DVC works in a repository
    with tempfile.TemporaryDirectory() as scratch:
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=source, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as content:
            content.extractall(scratch, filter="data")
        fresh = Path(scratch)
        names = [str(PurePosixPath(path.relative_to(fresh))) for path in fresh.rglob("*") if path.is_file()]
        names = [name for name in names if not name.startswith(NOT_COPIED)]
        for name in names:
            if not (target / name).is_file() or not filecmp.cmp(fresh / name, target / name, shallow=False):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(fresh / name, target / name)
    for path in (target / "pipeline").rglob("*.py"):
        if str(PurePosixPath(path.relative_to(target))) not in names:
            path.unlink()
    shutil.copy2(recipe, target / "params.yaml")
    for place in PLACES:
        (target / "reports" / place).mkdir(parents=True, exist_ok=True)


def collect(reports: Path, target: Path) -> list[str]:
    """Replaces `target` by what is kept of a folder of reports.

    Returns:
        One line for each picture that was left out for its size.
    """
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    patterns = ("*/*/metrics.json", "searches/*/best.json", "searches/*/trials.csv", "contrasts/*")
    kept = [path for pattern in patterns for path in sorted(reports.glob(pattern))]
    total = sum(path.stat().st_size for path in kept) + (reports / "summary.md").stat().st_size
    pictures, left_out = [], []
    for path in sorted([*reports.glob("visualise/*/*.png"), *reports.glob("*/*/pictures/*.png")]):
        if path.relative_to(reports).parts[0] == "data" or path.stem in ORDINARY:
            continue
        size = path.stat().st_size
        if size > MAX_PICTURE or total + size > MAX_TOTAL:
            left_out.append(f"{path.relative_to(reports)}: left out ({size:,} bytes)")
            continue
        total += size
        pictures.append(path)
    for path in [*kept, *pictures]:
        (fresh / path.relative_to(reports)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, fresh / path.relative_to(reports))
    text = summary(
        (reports / "summary.md").read_text(encoding="utf-8"), [path.relative_to(reports) for path in pictures]
    )
    before, heading, after = text.partition("\n## Pictures\n")
    (fresh / "summary.md").write_text(before + baselines(reports) + heading + after, encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return left_out


def summary(text: str, pictures: list[Path]) -> str:
    """The summary with the section of its pictures made of those that are kept, and of no others."""
    shown = {str(PurePosixPath(path)) for path in pictures}
    before, heading, after = text.partition("\n## Pictures\n")
    blocks = re.split(r"\n(?=\*\*)", after.partition("\n## ")[0]) if heading else []
    rest = after.partition("\n## ")[1] + after.partition("\n## ")[2]
    listed = []
    for block in blocks:
        link = re.search(r"\]\(([^)]*)\)", block)
        if link and unquote(link[1]) in shown:
            listed.append(block.strip())
            shown.discard(unquote(link[1]))
    listed += [f"**{PurePosixPath(name).parts[1]}**\n\n![{PurePosixPath(name).stem}]({name})" for name in sorted(shown)]
    section = "\n## Pictures\n\n" + "\n\n".join(listed) + "\n" if listed else ""
    return (before + section + rest).replace("this file and the page `index.html` from `reports/`", "this table")


def baselines(reports: Path) -> str:
    """A section that says which runs are no better than an answer without learning."""
    above, below = [], []
    for path in sorted(reports.glob("runs/*/metrics.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        intervals = {name: (low, high) for name, low, high in content.get("intervals") or []}
        counts = [row["num_images"] for row in content.get("per_class") or [] if "num_images" in row]
        if "top1" in content and counts:
            value, trivial = content["top1"], max(counts) / sum(counts)
            is_above = intervals.get("top1", (value, value))[0] > trivial
        elif "rmse" in content:
            value, trivial = content["rmse"], content["rmse_mean"]
            is_above = intervals.get("rmse", (value, value))[1] < trivial
        else:
            continue
        (above if is_above else below).append(f"{path.parent.name} ({value:.3g}, without learning {trivial:.3g})")
    num = len(above) + len(below)
    lines = [
        "\n## Against no learning\n",
        f"The whole interval of the score of {len(above)} of {num} runs is better than that of an answer that has not "
        "looked: the most frequent class of the test images, or the mean of their numbers."
        + (" The others:\n" if below else ""),
        *(f"- {one}".replace("_", "\\_") for one in below),
    ]
    return "\n".join(lines) + "\n"


def noted(recipe: str, folder: Path) -> str:
    """A recipe with comments that say what its runs scored and took, and what came of its contrasts.

    Args:
        recipe: its text; a run's line ends in `# expect ...`.
        folder: of the copy in which it was run.
    """
    judged = json.loads((folder / "reports/contrasts/contrasts.json").read_text(encoding="utf-8"))
    wanted: dict[str, list[str]] = {}
    for one in judged.values():
        for name in (one["idea"], one["foil"]):
            wanted.setdefault(name, []).append(one["metric"])
    seconds: dict[str, float] = {}
    for line in (folder / "data/ledger.jsonl").read_text(encoding="utf-8").splitlines():
        cost = json.loads(line)
        seconds[f"{cost['command']}@{cost['name']}"] = cost["seconds"]

    def of_run(match: re.Match[str]) -> str:
        name = match[1]
        place = folder / "reports/runs" / name / "metrics.json"
        if not place.is_file():
            return match[0]
        found = json.loads(place.read_text(encoding="utf-8"))
        shown = dict.fromkeys([*(["top1"] if "top1" in found else ["rmse"]), *wanted.get(name, [])])
        scores = ", ".join(f"{metric} {found[metric]:.3g}" for metric in shown if found.get(metric) is not None)
        took = sum(seconds.get(f"{verb}@{name}", 0) for verb in ("train", "predict", "evaluate"))
        return f"  {name}: # expect {scores} on 2 CPU cores in {max(1, round(took))} s"

    def of_contrast(match: re.Match[str]) -> str:
        one = judged.get(match[1])
        if one is None or one["idea_value"] is None or one["foil_value"] is None:
            return match[0]
        return f"  {match[1]}: # {one['idea_value']:.3g} against {one['foil_value']:.3g}: {one['verdict']}"

    before, heading, after = recipe.partition("\ncontrasts:\n")
    contrasts, next_section, rest = after.partition("\nvisualisations:")
    before = re.sub(r"(?m)^  (\w+): # expect .*$", of_run, before)
    return before + heading + re.sub(r"(?m)^  (\w+):(?: #.*)?$", of_contrast, contrasts) + next_section + rest


def verdicts(reports: Path) -> str:
    """How many contrasts came out how, such as `12 shows, 2 no evidence`."""
    content = json.loads((reports / "contrasts/contrasts.json").read_text(encoding="utf-8"))
    found = [one["verdict"] for one in content.values()]
    return ", ".join(f"{found.count(verdict)} {verdict}" for verdict in dict.fromkeys(found))


def main() -> int:
    """Copies, runs and collects; the exit code of the run where that fails, and then nothing kept is touched."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=PROJECT / "recipes/zoo.yaml")
    parser.add_argument("--folder", type=Path, default=PROJECT / "build/zoo", help="of the copy")
    parser.add_argument("--kept", type=Path, default=PROJECT / "reports/zoo", help="for the results")
    parser.add_argument("--jobs", help="stages at once; default: as many as the machine takes")
    parser.add_argument("--note", action="store_true", help="write scores and times into the recipe's comments")
    given = parser.parse_args()
    copy(PROJECT, given.folder, given.recipe)
    start = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "repro",
        "--keep-going",
        *(["--jobs", given.jobs] if given.jobs else []),
    ]
    code = subprocess.run(command, cwd=given.folder, check=False).returncode
    if code:
        return code
    for line in collect(given.folder / "reports", given.kept):
        print(line, file=sys.stderr)
    if given.note:
        given.recipe.write_text(noted(given.recipe.read_text(encoding="utf-8"), given.folder), encoding="utf-8")
    minutes = (time.monotonic() - start) / 60
    print(f"{given.kept}: {verdicts(given.kept)}; {minutes:.1f} minutes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
