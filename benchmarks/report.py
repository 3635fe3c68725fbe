"""Writes the report of finished runs: a table for people, and the whole result with raw samples as JSON.

    .venv/bin/python benchmarks/report.py --home HOME --output benchmarks/results/NAME --command "..." RUN...

`--command` is what produced the runs, as it was typed. Every number comes from the store.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from cudaforge import wiring
from cudaforge.evaluation import Baseline, Evaluation, Interval, Verification
from cudaforge.store.sqlite import SqliteStore
from cudaforge.trace import Plan, Run


def rows(store: SqliteStore, run: Run) -> list[str]:
    """The rounds as lines of a Markdown table."""
    lines = [
        "| round | action | verdict | time | over eager | over torch.compile | what was changed |",
        "|" + "---|" * 7,
    ]
    for attempt in store.attempts(run.id):
        speedup = attempt.speedup
        times = [f"{attempt.time_us:.2f} us" if attempt.time_us else ""]
        times.append(f"{speedup.eager.value:.2f}" if speedup else "")
        times.append(f"{speedup.compile.value:.2f}" if speedup and speedup.compile else "")
        advice = attempt.advice
        what = advice.method if isinstance(advice, Plan) else advice.critical_issue if advice else "first draft"
        cells = [str(attempt.round), attempt.action.value, str(attempt.verdict), *times, what.replace("|", "/")]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def report(store: SqliteStore, run: Run, command: str) -> tuple[str, dict[str, object]]:
    """Markdown and JSON of one run."""
    outcome = run.outcome
    if outcome is None or outcome.verification is None:
        raise SystemExit(f"run {run.id} has no verification to report")
    verification = store.result(outcome.verification)
    assert isinstance(verification, Verification)
    evaluation, aa = verification.evaluation, verification.aa
    results = store.results(run.id)
    baseline = next(result for result in results.values() if isinstance(result, Baseline))
    assert evaluation.speedup is not None and evaluation.time_us is not None and aa is not None

    def show(name: str, interval: Interval) -> str:
        return f"{name} {interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"

    speedups = [show("over eager", evaluation.speedup.eager)]
    if evaluation.speedup.compile:
        speedups.append(show("over torch.compile", evaluation.speedup.compile))
    versions = ", ".join(f"{name} {version}" for name, version in evaluation.versions.items())
    compiled = f", torch.compile {baseline.compile_us:.2f} us" if baseline.compile_us else ""
    text = [
        f"## {run.spec.task.name} ({run.spec.language.value}) on {evaluation.device.name}",
        "",
        f"Verified: **{'; '.join(speedups)}**; {show('A/A control', aa)}; {evaluation.time_us:.2f} us a call, "
        f"eager {baseline.eager_us:.2f} us{compiled}, floor {baseline.floor_us or 0:.2f} us.",
        "",
        *rows(store, run),
        "",
        f"Run {run.id}, {run.created:%Y-%m-%d}; {len(store.attempts(run.id))} rounds; "
        f"models recorded:{run.spec.coder.split('/')[-1]}; evaluator {run.spec.evaluator.partition(':')[0]}; "
        f"{verification.processes} verification processes.",
        f"Versions: {versions}.",
        f"Isolation: {'; '.join(evaluation.isolation)}.",
        f"Command: `{command}`",
        "",
    ]
    evaluations = {key: r for key, r in results.items() if isinstance(r, Evaluation)}
    seconds = {key: {"verdict": r.verdict.value, "stages_s": r.stages_s} for key, r in evaluations.items()}
    data = {
        "run": run.id,
        "task": run.spec.task.name,
        "command": command,
        "verification": verification.model_dump(mode="json"),
        "baseline": baseline.model_dump(mode="json"),
        "attempts": [attempt.model_dump(mode="json") for attempt in store.attempts(run.id)],
        "stages_s": seconds,
    }
    return "\n".join(text), data


def main() -> None:
    """Reads the store, writes README.md and one JSON file a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--command", required=True)
    parser.add_argument("--title", default="Runs")
    parser.add_argument("runs", nargs="+")
    arguments = parser.parse_args()
    store = wiring.open_store(arguments.home)
    arguments.output.mkdir(parents=True, exist_ok=True)
    texts = [f"# {arguments.title}\n"]
    for reference in arguments.runs:
        run = wiring.find_run(store, reference)
        text, data = report(store, run, arguments.command.replace("TASK", run.spec.task.name))
        texts.append(text)
        name = f"{run.spec.task.name}-{run.spec.language.value}.json"
        (arguments.output / name).write_text(json.dumps(data, indent=1) + "\n")
    (arguments.output / "README.md").write_text("\n".join(texts))
    store.close()


if __name__ == "__main__":
    main()
