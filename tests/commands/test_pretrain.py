from __future__ import annotations

import pytest

from ..conftest import ROOT

pytest.importorskip("pytorch_metric_learning")


def test_simclr_gives_a_checkpoint_that_pplr_starts_from(
    run, run_args, checkpoint_args, drawn, tmp_path
):
    cli = run(
        "pretrain",
        f"--config={ROOT / 'configs/simclr.yaml'}",
        f"--data.dataset.init_args.root={drawn}",
        "--data.image_size=[64,32]",
        "--data.batch_size=16",
        "--data.iterations=3",
        "--data.num_workers=0",
        "--model.backbone=resnet10t",
        "--model.pretrained=false",
        "--model.num_parts=2",  # as in configs/demo.yaml
        "--model.norm_batch_size=8",
        "--trainer.max_epochs=1",
        "--trainer.check_val_every_n_epoch=1",
        "--trainer.accelerator=cpu",
        f"--trainer.logger.init_args.save_dir={tmp_path}",
        "--trainer.callbacks=[]",
        *checkpoint_args,
    )
    assert "val/mAP" in cli.trainer.callback_metrics
    checkpoint = tmp_path / "simclr/version_0/checkpoints/last.ckpt"
    pplr = run("fit", *run_args, f"--model.warm_start={checkpoint}", "--trainer.max_epochs=1")
    assert pplr.trainer.global_step == 3
