from __future__ import annotations

import cameras as benchmark

from ..conftest import run_options


def test_prints_a_row_of_all_uses_of_camera_ids(drawn, tmp_path, capsys):
    # Not the counts, which the camera-aware distance does not have.
    others = ("--config", "labeler.k1=", "labeler.k2=")
    options = run_options(drawn, tmp_path)
    small = [option for option in options if not any(name in option for name in others)]
    small += ["--trainer.max_epochs=1", "--data.iterations=1", "--pseudo_labels.labeler.k1_inter=4"]
    arguments = ["--rows", "all", "--seeds", "2", f"--runs={tmp_path}", *small]
    benchmark.main(arguments)
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("| all |"))
    assert len(row.strip("|").split("|")) == 8
    config = (tmp_path / "runs/all-2/config.yaml").read_text()
    for setting in ("CameraDBSCAN", "use_cameras: true", "camera_weight: 0.5"):
        assert setting in config


def test_rows_use_camera_ids_one_at_a_time():
    assert benchmark.ROWS["none"] == []
    single = [benchmark.ROWS[name] for name in ("sampler", "loss", "jaccard")]
    assert sum(single, []) == benchmark.ROWS["all"]
