"""The paper's ablation (its Table 3) on any config: neither, AALS only, PGLR only, both.

    python benchmarks/ablation.py --seeds 0 1 2 --config configs/market1501.yaml \
        --config configs/overlays/cpu.yaml --data.dataset.root <folder>

Prints mAP and rank-1 of the last epoch, mean and standard deviation over the seeds, and epoch by
epoch what the labels and the heads were like. Identities are used for that alone. A run goes on
where it was stopped, and one that has ended (its summary.json is there) is not run again. All rows
of a seed come before the next seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from rows import Run, row_parser, spread, train

from pplr_lightning.callbacks.shared import History
from pplr_lightning.functional.losses import refined_labels

OVERRIDES = Path(__file__).parents[1] / "configs/ablation"
ROWS = {"neither": "baseline", "AALS": "aals", "PGLR": "pglr", "AALS and PGLR": "both"}
COURSES = {
    "clusters": "labels/clusters",
    "outliers": "labels/outliers",
    "ARI": "labels/ari",
    "agreement": "labels/agreement_mean",
    "global head, labels": "accuracy/global",
    "part heads, labels": "accuracy/parts",
    "global head, truth": "accuracy/global_truth",
    "part heads, truth": "accuracy/parts_truth",
    "labels, truth": "accuracy/labels_truth",
    "wrong labels that parts put right": "accuracy/righted",
    "right labels that parts put wrong": "accuracy/wronged",
}


class HeadAccuracy(Callback):
    """Writes into the history how often the heads are right, in training and on its batches.

    Against the labels: they name an image's cluster. Against the truth: they name a cluster most
    of whose images are of the image's identity. What PGLR would make of the labels if it followed
    the parts alone (beta 0): the share of all images whose wrong label would become right
    (`righted`), and whose right label wrong (`wronged`).
    """

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Listens to the heads."""
        self.epoch = -1  # whose clusters are known
        self.logits: list[torch.Tensor] = []  # of this step, each head's (B, C)
        heads = [pl_module.classifier, *pl_module.part_classifiers]
        listen = lambda head, inputs, logits: self.logits.append(logits.detach().cpu())  # noqa: E731
        self.hooks = [head.register_forward_hook(listen) for head in heads]

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
        """Forgets the last step; finds the identity of each of a new epoch's clusters."""
        self.logits.clear()
        if self.epoch == trainer.current_epoch:
            return
        self.epoch = trainer.current_epoch
        data = trainer.datamodule
        self.persons = torch.tensor([sample.person_id for sample in data.train_samples])
        classes = data.pseudo_labels.classes
        persons, rows = self.persons.unique(return_inverse=True)
        counts = torch.zeros(int(classes.max()) + 1, len(persons), dtype=torch.long)
        kept = classes >= 0
        counts.index_put_((classes[kept], rows[kept]), torch.tensor(1), accumulate=True)
        self.identity = persons[counts.argmax(1)]

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compares what they named."""
        persons, targets = self.persons[batch.indices.cpu()], batch.targets.cpu()
        is_right = lambda named: self.identity[named] == persons  # noqa: E731
        named = [logits.argmax(1) for logits in self.logits]
        whole, *parts = (
            torch.stack([clusters == targets, is_right(clusters)]).float().mean(1)
            for clusters in named
        )
        right = is_right(targets)
        values = {
            "global": whole[0],
            "global_truth": whole[1],
            "labels_truth": right.float().mean(),
        }
        if parts:
            values["parts"], values["parts_truth"] = torch.stack(parts).mean(0)
            onto_parts = refined_labels(
                torch.stack(self.logits[1:], dim=2),
                targets,
                batch.columns["agreement"].cpu(),
                beta=0.0,
            )
            by_parts = is_right(onto_parts.argmax(1))
            values["righted"] = (by_parts & ~right).float().mean()
            values["wronged"] = (right & ~by_parts).float().mean()
        row = History.of(trainer).row(trainer)
        for name, value in values.items():
            mean = row.get(f"accuracy/{name}", 0.0)  # of the epoch's steps so far
            row[f"accuracy/{name}"] = mean + (float(value) - mean) / (batch_idx + 1)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Lets go of the heads."""
        for hook in self.hooks:
            hook.remove()


def main(args: list[str] | None = None) -> None:
    """Runs what is missing and prints the tables."""
    parser = row_parser(__doc__.splitlines()[0], runs="runs/ablation")
    parser.add_argument("--config", required=True, action="append")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    options, rest = parser.parse_known_args(args)

    callback = f"--trainer.callbacks+={HeadAccuracy.__module__}.{HeadAccuracy.__qualname__}"
    runs: dict[str, list[Run]] = {name: [] for name in options.rows}
    for seed in options.seeds:
        for name, row in runs.items():
            configs = [*options.config, OVERRIDES / f"{ROWS[name]}.yaml"]
            arguments = [f"--config={config}" for config in configs]
            row.append(train(name, seed, arguments, options, [*rest, callback]))

    print("| | before | mAP | rank-1 | mAP of each seed |\n|---|---|---|---|---|")
    for name, row in runs.items():
        summaries = [run.summary for run in row]
        values = [spread([run["first"]["mAP"] for run in summaries])]
        for metric in ("mAP", "rank-1"):
            values.append(spread([run["last"][metric] for run in summaries]))
        each = ", ".join(f"{100 * run['last']['mAP']:.1f}" for run in summaries)
        print(f"| {name} | {' | '.join(values)} | {each} |")
    for title, logged in COURSES.items():
        print(f"\n{title}, by epoch, mean over the seeds:")
        for name, row in runs.items():
            epochs = zip(*(run.course(logged) for run in row), strict=False)
            print(f"{name:>14}", *(f"{sum(values) / len(values):.3g}" for values in epochs))


if __name__ == "__main__":
    main()
