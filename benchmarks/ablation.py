"""The paper's ablation (its Table 3) on any config: neither, AALS only, PGLR only, both.

    python benchmarks/ablation.py --config configs/demo.yaml --seeds 0 1 2 \
        --warm_start 'runs/demo_pretrain/pretrain-{seed}/checkpoints/last.ckpt'

Prints mAP and rank-1 of the last epoch, mean and standard deviation over the seeds. A row that was
run before (its summary.json is there) is not run again.
"""

from __future__ import annotations

from pathlib import Path

from rows import row_parser, spread, train_row

OVERRIDES = Path(__file__).parents[1] / "configs/ablation"
ROWS = {"neither": "baseline", "AALS": "aals", "PGLR": "pglr", "AALS and PGLR": "both"}


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = row_parser(__doc__.splitlines()[0], runs="runs/ablation")
    parser.add_argument("--config", required=True)
    options, rest = parser.parse_known_args()

    print("| | before | mAP | rank-1 | mAP of each seed |\n|---|---|---|---|---|")
    for name, override in ROWS.items():
        configs = [f"--config={options.config}", f"--config={OVERRIDES / override}.yaml"]
        runs = [run.summary for run in train_row(name, configs, options, rest)]
        values = [spread([run["first"]["mAP"] for run in runs])]
        values += [spread([run["last"][metric] for run in runs]) for metric in ("mAP", "rank-1")]
        each = ", ".join(f"{100 * run['last']['mAP']:.1f}" for run in runs)
        print(f"| {name} | {' | '.join(values)} | {each} |", flush=True)


if __name__ == "__main__":
    main()
