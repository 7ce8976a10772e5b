from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pplr_lightning.models import GroupBatchNorm, PartModel, compilation

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_a_run_without_a_compiler_ends_at_its_start(run, run_args, capsys, monkeypatch):
    monkeypatch.setattr(compilation, "BACKEND", "none_such")
    with pytest.raises(SystemExit) as stop:
        run("fit", *run_args, "--model.compile=true")
    assert stop.value.code == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: model.compile=true cannot compile for cpu here (")
    assert "epoch 0" not in error


@pytest.fixture
def traced(monkeypatch):
    """Everything of compiling but the machine code, which takes minutes on a CPU."""
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters
    torch._dynamo.reset()


def make(**options):
    torch.manual_seed(0)
    return PartModel("test_resnet", norm_batch_size=4, max_clusters=7, **options)


def trained(model, images, steps=20, precision=None):
    """Losses of some steps on a batch that is learned by heart, and what they leave behind."""
    losses = []
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    targets = torch.arange(len(images), device=images.device) % 7
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.autocast(images.device.type, dtype=precision, enabled=precision is not None):
            output = model(images)
        parts = [F.cross_entropy(logits, targets) for logits in output.part_logits.unbind(2)]
        loss = F.cross_entropy(output.logits, targets) + sum(parts) / len(parts)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).cpu(), {name: v.cpu() for name, v in tensors(model).items()}


def tensors(model):
    return {n: v for n, v in model.state_dict().items() if isinstance(v, torch.Tensor)}


def assert_same(found, expected, tolerance):
    assert torch.allclose(found[0], expected[0], rtol=tolerance, atol=0)
    assert found[1].keys() == expected[1].keys()
    for name, value in found[1].items():
        assert torch.allclose(value, expected[1][name], rtol=tolerance, atol=tolerance), name


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_trains_as_the_plain_model(traced, chunk_size):
    """To 1e-9 in float64 over 3 steps: losses, weights, running statistics; from one graph."""
    images = torch.randn(8, 3, 64, 32, dtype=torch.float64)
    plain = trained(make().double(), images, steps=3)
    compiled = trained(make(compile=True, chunk_size=chunk_size).double(), images, steps=3)
    assert_same(compiled, plain, 1e-9)
    assert traced["stats"]["unique_graphs"] == 1
    assert not traced["graph_break"]


def test_evaluation_is_not_compiled(traced):
    model = make(compile=True).eval()
    for batch in (1, 2, 3):
        model(torch.randn(batch, 3, 64, 32))
    assert traced["stats"]["unique_graphs"] == 0


def test_leaves_no_trace_in_the_model(traced):
    model, plain = make(compile=True), make()
    model(torch.randn(8, 3, 64, 32))
    assert model.state_dict().keys() == plain.state_dict().keys()
    copied = copy.deepcopy(model).eval()
    images = torch.randn(2, 3, 64, 32)
    assert torch.equal(copied(images).features, model.eval()(images).features)


@pytest.mark.slow
def test_machine_code_in_half_precision():
    """What inductor makes of a convolution and a grouped norm under autocast, forth and back."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), GroupBatchNorm(4, group_size=2))
    images = torch.randn(4, 3, 8, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = []
        for run in (network, torch.compile(network, dynamic=False)):
            output = run(images)
            gradient = torch.autograd.grad(output.float().sin().sum(), network[0].weight)[0]
            results.append((output.detach().float(), gradient))
    for found, expected in zip(*results, strict=True):
        assert torch.allclose(found, expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))


def test_a_compiler_that_is_there(traced):
    compilation.check_compiler(torch.device("cpu"))


def test_no_compiler(monkeypatch):
    monkeypatch.setattr(compilation, "BACKEND", "none_such")
    message = r"model.compile=true cannot compile for cpu here \(.*none_such.*set model.compile to"
    with pytest.raises(ValueError, match=message) as error:
        compilation.check_compiler(torch.device("cpu"))
    assert "\n" not in str(error.value)


def on(device, *, slow=False):
    marks = {"cuda": needs_gpu, "cpu": [pytest.mark.slow] if slow else []}
    return pytest.param(device, marks=marks[device])


def assert_trains_alike(device, options, precision, tolerance):
    images = torch.randn(8, 3, 64, 32, device=device)
    plain, _ = trained(make().to(device), images)
    fast, _ = trained(make(**options).to(device), images, precision=precision)
    assert plain[-1] < 0.5 * plain[0]  # there is something to compare
    assert torch.allclose(fast, plain, rtol=tolerance)


@pytest.mark.parametrize("device", [on("cpu"), on("cuda")])
@pytest.mark.parametrize(
    ("options", "precision", "tolerance"),
    [
        ({"channels_last": True}, None, 2e-3),
        ({}, torch.bfloat16, 0.02),
        ({"channels_last": True}, torch.bfloat16, 0.02),
        ({"chunk_size": 4}, torch.bfloat16, 0.02),
    ],
)
def test_losses_over_20_steps(device, options, precision, tolerance):
    assert_trains_alike(device, options, precision, tolerance)


@pytest.mark.parametrize("device", [on("cpu", slow=True), on("cuda")])
@pytest.mark.parametrize(
    ("options", "precision", "tolerance"),
    [
        ({}, None, 2e-3),
        ({"channels_last": True}, None, 2e-3),
        ({"channels_last": True}, torch.bfloat16, 0.02),
        ({"chunk_size": 4}, torch.bfloat16, 0.02),
    ],
)
def test_losses_over_20_compiled_steps(device, options, precision, tolerance):
    assert_trains_alike(device, {**options, "compile": True}, precision, tolerance)
