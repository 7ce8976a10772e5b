from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pseudo_labels.kl=30"], "unrecognized arguments: --pseudo_labels.kl=30, did you"),
        (["--data.batchsize=3"], "--data.batchsize=3, did you mean --data.batch_size?"),
        (["--model.aals=maybe"], "model.aals: expected bool. Got value: maybe"),
        (
            ["--evaluation.test_features=all"],
            "features: expected typing.Literal['global',",
        ),
        (
            ["--model.network.backbnoe=resnet18"],
            "model.network: pplr_lightning.PartNetwork has no option 'backbnoe', did you mean "
            "backbone?",
        ),
        (["--model.network.num_parts=2.5"], "model.network.num_parts: expected int. Got value"),
        (["--pseudo_labels.labeler=DBSCNA"], "no class 'DBSCNA', did you mean DBSCAN?"),
        (["--trainer.max_epochs=few"], "trainer.max_epochs: expected int. Got value: few"),
        (["--data.image_size=64x32"], "Got value: 64x32; write it in brackets, such as [64,3"),
        (
            ["--optimizer=null", "--optimizer.lr=1"],
            "optimizer: give the class, --optimizer, before its option 'lr'",
        ),
    ],
)
def test_says_in_one_line_what_is_wrong(run, run_args, capsys, options, message):
    with pytest.raises(SystemExit) as stop:
        run("fit", *run_args, *options)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert line.endswith("; see python -m pplr_lightning fit --help")
