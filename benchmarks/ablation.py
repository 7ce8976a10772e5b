"""The paper's ablation (its Table 3) on any config: neither, AALS only, PGLR only, both.

    python benchmarks/ablation.py --config configs/demo.yaml --seeds 0 1 2 \
        --warm_start 'runs/demo_pretrain/pretrain-{seed}/checkpoints/last.ckpt'

Prints mAP and rank-1 of the last epoch, mean and standard deviation over the seeds. A row that was
run before (its summary.json is there) is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from pplr_lightning.cli import run_cli

OVERRIDES = Path(__file__).parents[1] / "configs/ablation"
ROWS = {"neither": "baseline", "AALS": "aals", "PGLR": "pglr", "AALS and PGLR": "both"}


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--warm_start", help="checkpoint; {seed} is replaced by the seed")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    options, rest = parser.parse_known_args()

    print("| | before | mAP | rank-1 | mAP of each seed |\n|---|---|---|---|---|")
    for name, override in ROWS.items():
        summaries = [_run(name, override, seed, options, rest) for seed in options.seeds]
        values = [_spread([summary["first"]["mAP"] for summary in summaries])]
        values += [
            _spread([summary["last"][metric] for summary in summaries])
            for metric in ("mAP", "rank-1")
        ]
        each = ", ".join(f"{100 * summary['last']['mAP']:.1f}" for summary in summaries)
        print(f"| {name} | {' | '.join(values)} | {each} |", flush=True)


def _run(
    name: str, override: str, seed: int, options: argparse.Namespace, rest: list[str]
) -> dict[str, dict[str, float]]:
    version = f"{name.replace(' ', '-')}-{seed}"
    folder = options.runs / "runs" / version
    if not (folder / "summary.json").is_file():
        warm_start = options.warm_start.format(seed=seed) if options.warm_start else "null"
        run_cli(
            [
                "fit",
                f"--config={options.config}",
                f"--config={OVERRIDES / override}.yaml",
                f"--seed_everything={seed}",
                f"--model.warm_start={warm_start}",
                f"--trainer.logger.save_dir={options.runs}",
                "--trainer.logger.name=runs",
                f"--trainer.logger.version={version}",
                *rest,
            ]
        )
    return json.loads((folder / "summary.json").read_text())


def _spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ± {100 * deviation:.1f}"


if __name__ == "__main__":
    main()
