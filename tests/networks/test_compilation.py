from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pplr_lightning import PPLRModule
from pplr_lightning.networks import GroupBatchNorm, PartNetwork, compilation

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_a_run_without_a_compiler_ends_at_its_start(run, run_args, capsys, monkeypatch):
    monkeypatch.setattr(compilation, "BACKEND", "none_such")
    with pytest.raises(SystemExit) as stop:
        run("fit", *run_args, "--model.network.compile=true")
    assert stop.value.code == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: model.network.compile=true cannot compile for cpu here (")
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
    return PartNetwork("test_resnet", weights=None, norm_batch_size=4, **options)


def trained(network, images, steps=20, precision=None):
    """Losses of some steps on a batch that is learned by heart, and what they leave behind."""
    torch.manual_seed(0)
    module, losses = PPLRModule(network, max_clusters=7).to(images.device, images.dtype), []
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    targets = torch.arange(len(images), device=images.device) % 7
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.autocast(images.device.type, dtype=precision, enabled=precision is not None):
            output = network(images)
        whole, parts = module.logits(output)
        part_losses = [F.cross_entropy(logits, targets) for logits in parts.unbind(2)]
        loss = F.cross_entropy(whole, targets) + sum(part_losses) / len(part_losses)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).cpu(), {name: v.cpu() for name, v in tensors(module).items()}


def tensors(module):
    return {n: v for n, v in module.state_dict().items() if isinstance(v, torch.Tensor)}


def assert_same(found, expected, tolerance):
    assert torch.allclose(found[0], expected[0], rtol=tolerance, atol=0)
    assert found[1].keys() == expected[1].keys()
    for name, value in found[1].items():
        assert torch.allclose(value, expected[1][name], rtol=tolerance, atol=tolerance), name


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_trains_as_the_plain_network(traced, chunk_size):
    """To 1e-9 in float64 over 3 steps: losses, weights, running statistics; from one graph."""
    images = torch.randn(8, 3, 64, 32, dtype=torch.float64)
    plain = trained(make(), images, steps=3)
    compiled = trained(make(compile=True, chunk_size=chunk_size), images, steps=3)
    assert_same(compiled, plain, 1e-9)
    assert traced["stats"]["unique_graphs"] == 1
    assert not traced["graph_break"]


def test_evaluation_is_not_compiled(traced):
    network = make(compile=True).eval()
    for batch in (1, 2, 3):
        network(torch.randn(batch, 3, 64, 32))
    assert traced["stats"]["unique_graphs"] == 0


def test_leaves_no_trace_in_the_network(traced):
    network, plain = make(compile=True), make()
    network(torch.randn(8, 3, 64, 32))
    assert network.state_dict().keys() == plain.state_dict().keys()
    copied = copy.deepcopy(network).eval()
    images = torch.randn(2, 3, 64, 32)
    assert torch.equal(copied(images).features, network.eval()(images).features)


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
    message = (
        r"model.network.compile=true cannot compile for cpu here \(.*none_such.*"
        r"set model.network.compile to"
    )
    with pytest.raises(ValueError, match=message) as error:
        compilation.check_compiler(torch.device("cpu"))
    assert "\n" not in str(error.value)


def on(device, *, slow=False):
    marks = {"cuda": needs_gpu, "cpu": [pytest.mark.slow] if slow else []}
    return pytest.param(device, marks=marks[device])


def assert_trains_alike(device, options, precision, tolerance):
    images = torch.randn(8, 3, 64, 32, device=device)
    plain, _ = trained(make(), images)
    fast, _ = trained(make(**options), images, precision=precision)
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
