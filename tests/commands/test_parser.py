from __future__ import annotations

import pytest

from pplr_lightning.commands.parser import explain
from pplr_lightning.labelers import Labeler


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pseudo_labels.kl=30"], "unrecognized arguments: --pseudo_labels.kl=30"),
        (["--data.batchsize=3"], "--data.batchsize=3, did you mean data.batch_size?"),
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
        (
            ["--pseudo_labels.labeler.k1=atuo"],
            "labeler.k1: expected int or expected typing.Literal['auto']. Got value: atuo;",
        ),
        (["--model.network.num_parts=2.5"], "model.network.num_parts: expected int. Got value"),
        (["--pseudo_labels.labeler=DBSCNA"], "no class 'DBSCNA', did you mean DBSCAN?"),
        (["--trainer.max_epochs=few"], "trainer.max_epochs: expected int. Got value: few"),
        (["--data.image_size=64x32"], "Got value: 64x32; write numbers in brackets"),
        (["--optimizer.lr=fast"], "optimizer.lr: expected float. Got value: fast;"),
        (["--model.foo=class_path='Nope'"], "model: pplr_lightning.PPLRModule has no option 'foo'"),
        (["--model.backbnoe=resnet18"], "'backbnoe', did you mean model.network.backbone?"),
        (["--pseudo_labels.eps=0.4"], "eps=0.4, did you mean pseudo_labels.labeler.eps?"),
        (["--modle.beta=1"], "--modle.beta=1, did you mean model.beta?"),
        (["--confg=a.yaml"], "--confg=a.yaml, did you mean config?"),
        (["--data.padding=1:30"], "data.padding: expected int. Got value: 1:30;"),
        (["--data.random_erasing=0:0.5"], "data.random_erasing: expected float. Got value: 0:0.5;"),
        (["--data.image_size=[064,32]"], "data.image_size: expected tuple. Got value: [064,32];"),
        (["--data.lr=1"], "unrecognized arguments: --data.lr=1; see"),
        (["--data.dataset=Market1502"], "no class 'Market1502', did you mean Market1501?"),
        (
            ["--trainer.callbacks+=pplr_lightning.callbacks.Figures", "--trainer.callbacks.part=x"],
            "trainer.callbacks.part: expected int. Got value: x;",
        ),
        (
            [
                "--trainer.callbacks+=pplr_lightning.callbacks.Figures",
                "--trainer.callbacks.imagse=3",
            ],
            "trainer.callbacks: pplr_lightning.callbacks.Figures has no option 'imagse', did you "
            "mean images?",
        ),
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


def test_a_labeler_of_ones_own_is_no_hindrance():
    class Mine(Labeler):
        label = None

    text = "Subtypes: [<class 'pplr_lightning.labelers.labeler.Labeler'>]\n"
    text += "Expected a dot import path string: Instancs"
    assert explain(text, []) == "there is no class 'Instancs', did you mean Instances?"


def test_an_account_of_another_form_comes_as_it_is():
    assert explain("Something\nof another version", []) == "Something"
    assert explain("Option 'a' is not accepted", []) == "it has no option 'a'"
    text = "Problem with given class_path 'no.such':\n  Option 'a' is not accepted"
    assert explain(text, []) == "no.such has no option 'a'"
