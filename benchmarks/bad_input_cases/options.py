# ruff: noqa: E501 - tables of input
"""Options of `fit` and its kin: values of other types, out of range, in other scripts."""

from __future__ import annotations

from collections.abc import Iterator

from .bench import Bench, Case, some

# The kinds of bad values; a text is how it stands on a command line.
WHOLE = ("-1", "0", "1.5", "nan", "1e400", "99999999999999999999", "two", "", "null", "[1]", "1:30")
REAL = ("nan", "inf", "-inf", "-0.5", "1e400", "half", "", "null", "[0.5]", "0,5", "1:30.5")
TRUTH = ("maybe", "2", "", "null", "[true]", "nan")
CHOICE = ("", "nope", "null", "[auto]", "ÄÖ", "1")
PAIR = ("64", "[64]", "[64,32,3]", "[0,0]", "[-1,32]", "[64,nan]", "[1e9,1e9]", "64x32", "[]",
        "null", "[010,32]")  # fmt: skip
CLASS = ("Nope", "os.system", "[]", "3", "null", "{class_path: }", "pplr_lightning.Nope", "é")
OPTIONS: dict[str, tuple[str, ...]] = {
    "data.batch_size": WHOLE, "data.instances": WHOLE, "data.iterations": WHOLE,
    "data.eval_batch_size": WHOLE, "data.num_workers": WHOLE, "data.padding": WHOLE,
    "data.views": WHOLE, "data.seed": WHOLE, "seed_everything": WHOLE,
    "model.max_clusters": WHOLE, "model.agreement_k": WHOLE, "model.network.num_parts": WHOLE,
    "model.network.norm_batch_size": WHOLE, "pseudo_labels.labeler.k1": WHOLE,
    "pseudo_labels.labeler.k2": WHOLE, "pseudo_labels.labeler.min_samples": WHOLE,
    "pseudo_labels.probes": WHOLE, "trainer.max_epochs": WHOLE, "trainer.devices": WHOLE,
    "trainer.accumulate_grad_batches": WHOLE, "trainer.check_val_every_n_epoch": WHOLE,
    "trainer.log_every_n_steps": WHOLE, "trainer.num_nodes": WHOLE,
    "data.random_erasing": REAL, "pseudo_labels.labeler.eps": REAL, "pseudo_labels.labeler.rho": REAL,
    "model.beta": REAL, "layer_decay": REAL, "optimizer.lr": REAL, "optimizer.weight_decay": REAL,
    "trainer.gradient_clip_val": REAL, "data.repeat_images": TRUTH, "data.plain_view": TRUTH,
    "model.network.channels_last": TRUTH, "model.aals": TRUTH, "data.use_cameras": CHOICE,
    "data.cache": CHOICE, "data.augmentation": CHOICE, "data.bad_images": CHOICE,
    "pseudo_labels.backend": CHOICE, "pseudo_labels.index": CHOICE,
    "evaluation.test_features": CHOICE, "trainer.accelerator": CHOICE, "trainer.strategy": CHOICE,
    "trainer.precision": CHOICE, "model.network.pooling": CHOICE, "model.network.backbone": CHOICE,
    "data.image_size": PAIR, "evaluation.topk": ("[]", "[0]", "[1,1]", "[-1]", "[a]", "5", "null"),
    "data.mean": ("[0,0]", "[nan,0,0]", "0.5", "[a,b,c]"),
    "data.std": ("[0,1,1]", "[1,1]", "[-1,1,1]", "[inf,1,1]"),
    "data.dataset": tuple(value for value in CLASS if value != "null"),  # null: the drawn set
    "model": CLASS, "model.network": CLASS, "pseudo_labels.labeler": CLASS,
    "optimizer": CLASS, "lr_scheduler": CLASS, "trainer.callbacks": CLASS,
    "trainer.logger": CLASS, "ckpt_path": ("nope.ckpt", "/", "", "[]", "\u202egpj"),
    "model.network.weights": ("nope.pth", "/", "/dev/null", "/dev/zero", "[]", "3"),
    "data.nope": ("1",), "nope": ("1",), "trainer.nope": ("1",), "model.nope": ("1",),
}  # fmt: skip


def option_cases(bench: Bench) -> Iterator[Case]:
    """Values of other types, out of range, in other scripts."""
    for turn, (option, values) in enumerate(OPTIONS.items()):
        base = ["--optimizer=Adam"] if option.startswith("optimizer.") else []
        base = base or (
            ["--optimizer=Adam", "--optimizer.lr=1e-4"] if option == "lr_scheduler" else []
        )
        for value in some(values, turn):
            words = ["fit", *bench.options(), *base, f"--{option}={value}"]
            yield Case(
                f"option {option}={value}",
                words,
                (option.rpartition(".")[2], value or "''", "learning rate"),
            )
    for command in ("validate", "test", "predict"):
        for option, value in (
            ("data.image_size", "[0,0]"), ("data.eval_batch_size", "0"), ("trainer.devices", "none"),
            ("evaluation.topk", "[0]"), ("ckpt_path", "nope.ckpt"), ("ckpt_path", "last"),
        ):  # fmt: skip
            words = [command, *bench.options(), f"--{option}={value}"]
            yield Case(
                f"option of {command} {option}={value}", words, (option.rpartition(".")[2], value)
            )
