"""From a live module to a task file: what the file holds, that it behaves as the module does, and what is refused."""

from __future__ import annotations

import dataclasses
import linecache
import math
import textwrap
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn import functional as F  # noqa: N812 - as most people write it

from cudaforge.capture import capture
from cudaforge.errors import TaskError
from cudaforge.inuse import run_task
from cudaforge.task import Task

SCALE = 1.5
LIMITS = {"low": -2.0, "high": math.inf}


def squash(x: torch.Tensor) -> torch.Tensor:
    """Uses a constant and an import of this file."""
    return functional.hardtanh(x * SCALE, LIMITS["low"], 4.0)


class Gate(nn.Module):
    """A part that Block makes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.linear(x))


class Block(nn.Module):
    """Constructor arguments under the same names, a helper, a part, parameters of its own and a buffer."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self.gate = Gate(width)
        self.weight = nn.Parameter(torch.ones(width))
        self.register_buffer("mask", torch.ones(width, width).tril())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = squash(x @ self.mask)
        return F.layer_norm(x, (self.width,), self.weight, None, self.eps) * self.gate(x)


class Opaque(nn.Module):
    """Takes a module, which is no plain value."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + x.mean(dim=-1, keepdim=True)


class Branches(nn.Module):
    """Control flow that depends on values."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) if x.sum() > 0 else x


class Model(nn.Module):
    """Named as the file's own class has to be."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (super(Model, self).extra_repr() and x) or x + 1  # noqa: UP008 - old code says it so


def made(task: Task) -> tuple[Any, list[Any]]:
    """The Model and the inputs that a task file makes."""
    scope = run_task(task.source, "made.py")
    return scope["Model"](*scope["get_init_inputs"]()), scope["get_inputs"]()


def same_behaviour(module: nn.Module, task: Task) -> nn.Module:
    """Checks that the file's Model, with the live values, gives the live output on the file's own inputs."""
    model, inputs = made(task)
    model.load_state_dict(module.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.allclose(model(*inputs), module(*inputs), rtol=1e-4, atol=1e-4)
    assert isinstance(model, nn.Module)
    return model


def test_the_users_own_class_is_kept_with_all_that_it_refers_to() -> None:
    block = Block(48, eps=1e-3)
    task = capture(block, torch.randn(16, 48))
    assert task.name == "block"
    for kept in ("class Block(nn.Module)", "class Gate(nn.Module)", "def squash(", "SCALE = 1.5", "functional as F"):
        assert kept in task.source
    assert "return [48, 0.001]" in task.source
    same_behaviour(block, task)


def test_constructor_arguments_may_be_given_in_order_or_by_name() -> None:
    class Hidden(nn.Module):
        def __init__(self, width: int, *, bias: bool = True) -> None:
            super().__init__()
            self.inner = nn.Linear(width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.inner(x))

    module, x = Hidden(8), torch.randn(4, 8)
    for init in ([8], {"width": 8}):
        task = capture(module, x, init=init)
        assert "class Hidden(nn.Module)" in task.source and "return [8]" in task.source
        same_behaviour(module, task)
    traced = capture(module, x)
    assert "class Hidden(" not in traced.source and "nn.Linear(in_features=8" in traced.source
    same_behaviour(module, traced)
    with pytest.raises(TaskError, match="init does not fit Hidden's constructor"):
        capture(module, x, init=[1, 2, 3])


def test_a_class_from_a_notebooks_cell_is_found() -> None:
    cell = textwrap.dedent("""
        import torch
        from torch import nn

        class Celled(nn.Module):
            def forward(self, x):
                return torch.relu(x) * factor
    """)
    name = "<ipython-input-1>"
    linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
    scope: dict[str, Any] = {"__name__": "__main__", "factor": 3.0}
    exec(compile(cell, name, "exec"), scope)
    task = capture(scope["Celled"](), torch.randn(4, 4))
    assert "factor = 3.0" in task.source
    same_behaviour(scope["Celled"](), task)


@dataclasses.dataclass
class Settings:
    """As many models have them, without a function of its own."""

    width: int = 8
    dropout: float = 0.0


class Configured(nn.Module):
    """Checks its input, which torch.fx does not follow."""

    def __init__(self, config: Settings) -> None:
        super().__init__()
        self.config = config
        self.linear = nn.Linear(config.width, config.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[-1] == self.config.width
        if x.mean() > 100:
            return x
        return functional.dropout(self.linear(x), self.config.dropout)


def test_a_configuration_is_carried_as_well() -> None:
    module = Configured(Settings(width=12))
    task = capture(module, torch.randn(4, 12))
    assert "@dataclasses.dataclass\nclass Settings:" in task.source
    assert "return [Settings(width=12, dropout=0.0)]" in task.source
    same_behaviour(module, task)


def test_a_class_called_model_makes_room_for_the_files_own() -> None:
    task = capture(Model(), torch.randn(4))
    assert "class CapturedModel(nn.Module)" in task.source and "super(CapturedModel, self)" in task.source
    same_behaviour(Model(), task)


def test_without_its_source_a_module_is_written_as_torch_fx_traces_it() -> None:
    inner = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8, bias=False))
    module = Opaque(nn.ModuleDict({"a-b": inner, "norm": nn.LayerNorm(8)})["a-b"])
    task = capture(module, torch.randn(4, 8))
    assert "self.inner = nn.Sequential(nn.Linear(in_features=8, out_features=16, bias=True)" in task.source
    assert "= None" not in task.source
    same_behaviour(module, task)


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.ReLU(), nn.LayerNorm(8, bias=False))),
        nn.LayerNorm(8, eps=1e-3),
        nn.Sequential(nn.BatchNorm1d(8), nn.PReLU(8)).eval(),
    ],
    ids=["sequential", "layer_norm", "batch_norm"],
)
def test_a_librarys_module_is_made_again_by_its_constructor(module: nn.Module) -> None:
    task = capture(module, torch.randn(4, 8))
    assert f"class Model(nn.{type(module).__name__})" in task.source
    same_behaviour(module, task)


def test_parameters_and_buffers_are_like_the_live_ones() -> None:
    module = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 3)).eval()
    with torch.no_grad():
        module[0].weight.normal_(5.0, 0.1)
        module[1].running_var.uniform_(0.5, 4.0)
        module[2].bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    module[0].weight.requires_grad_(False)
    module[2].train()
    model, _ = made(capture(module, torch.randn(4, 64)))
    assert {n: (t.shape, t.dtype) for n, t in model.state_dict().items()} == {
        n: (t.shape, t.dtype) for n, t in module.state_dict().items()
    }
    weight = model.get_parameter("0.weight")
    assert abs(float(weight.mean()) - 5.0) < 0.1 and 0.05 < float(weight.std()) < 0.2
    assert not weight.requires_grad and model.get_parameter("0.bias").requires_grad
    variance = model.get_buffer("1.running_var")
    assert float(variance.min()) >= 0.5 and float(variance.max()) <= 4.0
    assert model.get_parameter("2.bias").tolist() == [1.0, 2.0, 3.0]
    assert (model.training, model[0].training, model[2].training) == (False, False, True)


def test_masks_positions_and_constants_are_exact() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.causal + self.places + self.offset

    hidden = Masked()
    hidden.register_buffer("causal", torch.full((40, 40), -math.inf).triu(1))
    hidden.register_buffer("places", torch.arange(40)[None], persistent=False)
    hidden.register_buffer("offset", torch.full((40,), 2.5))
    task = capture(hidden, torch.randn(40, 40))  # its constructor does not make the buffers: traced
    model, _ = made(task)
    for name in ("causal", "places", "offset"):
        assert torch.equal(model.get_buffer(name), hidden.get_buffer(name)), name
    assert set(model.state_dict()) == set(hidden.state_dict())


def test_a_cast_module_stays_cast() -> None:
    task = capture(Block(40).to(torch.bfloat16), torch.randn(8, 40, dtype=torch.bfloat16))
    model, inputs = made(task)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert inputs[0].dtype is torch.bfloat16


def test_tied_parameters_stay_tied() -> None:
    module = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    module[1].weight = module[0].weight
    holder = Opaque(nn.ModuleList([module])[0])
    holder.again = module[0]
    model, _ = made(capture(holder, torch.randn(2, 8)))
    assert model.inner[0].weight is model.inner[1].weight is model.again.weight


def test_inputs_are_drawn_like_the_examples() -> None:
    class Many(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: list[Any], e: float) -> torch.Tensor:
            return torch.where(c, a.T[:, : b.shape[0]] * e + b, d[0] * 0.0)

    examples = [
        torch.randn(32, 64).T,
        torch.randint(3, 90, (32,)),
        torch.rand(32, 32) < 0.25,
        [torch.rand(32, 32) * 8 + 100],
        0.5,
    ]
    module = Many()
    with pytest.raises(TaskError, match="fails on the example inputs"):
        capture(module, examples[:4])
    _, (a, b, c, d, e) = made(capture(module, examples))
    assert (a.shape, a.stride(), a.dtype) == (examples[0].shape, examples[0].stride(), torch.float32)
    assert b.dtype is torch.int64 and int(b.min()) >= 3 and int(b.max()) < 90
    assert c.dtype is torch.bool and 0.1 < float(c.float().mean()) < 0.4
    assert float(d[0].min()) > 99.9 and float(d[0].max()) < 108.1
    assert e == 0.5


def test_the_live_module_is_not_changed() -> None:
    module = nn.Sequential(nn.BatchNorm1d(40), nn.Dropout(0.5))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    capture(Opaque(module), torch.randn(8, 40) + 3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert module.training


def test_a_change_after_construction_is_found_and_the_module_traced_as_it_is() -> None:
    block = Block(48)
    block.gate.linear = nn.Identity()
    task = capture(block, torch.randn(16, 48))
    assert "class Gate" not in task.source and "hardtanh" in task.source
    same_behaviour(block, task)


def test_what_cannot_be_captured_says_why_and_what_to_do() -> None:
    x = torch.randn(4, 8)
    hooked = nn.Sequential(nn.Linear(8, 8))
    hooked[0].register_forward_hook(lambda module, inputs, out: out * 2)
    cases = [
        (hooked, x, "its part 0 has forward hooks"),
        (nn.Linear(8, 8), {"input": x}, "keyword arguments"),
        (Branches(nn.Linear(8, 8)), x, "pass init=.*torch.fx cannot trace it"),
        (lambda x: x, x, "is not an nn.Module"),
    ]
    for module, inputs, why in cases:
        with pytest.raises(TaskError, match=why) as raised:
            capture(module, inputs)
        assert raised.value.hint
