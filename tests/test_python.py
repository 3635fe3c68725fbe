"""The door for Python: a live module is optimised, its kernel put to use, and the record read; all of it live."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.recording import record
from support.scripted import TASK_SOURCE, ScriptedEvaluator, kernel_reply, plan_reply
from support.spool_server import serving
from support.tasks import cpp, scale_add
from torch import nn

import cudaforge as cf
from cudaforge import background, python
from cudaforge.errors import KernelError, ModelError, StoreError, Suspended, TaskError, UsageError
from cudaforge.evaluation import Verdict
from cudaforge.trace import RunState

KERNEL = """import torch
from torch import nn

class ModelNew(nn.Module):  # time_us=50, as the scripted evaluator says
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x, y):
        return torch.addcmul(y, x, self.weight)
"""
TASK = cf.Task.parse(TASK_SOURCE, name="add-one")


class ScaleAdd(nn.Module):
    """x * weight + y, with a weight that training has moved."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * self.weight + y


def module(n: int = 100) -> ScaleAdd:
    made = ScaleAdd(n)
    with torch.no_grad():
        made.weight.uniform_(0.5, 2.0)
    return made.eval()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def result(home: Path, tmp_path_factory: pytest.TempPathFactory) -> cf.RunResult:
    """A run of a live module, from its capture to its verification; the evaluator is scripted, the kernel real."""
    folder = tmp_path_factory.mktemp("optimize")
    model = record(folder / "recording", [f"```python\n{KERNEL}```\n"])
    inputs = (torch.randn(64, 100), torch.randn(64, 100))
    with serving(folder / "spool"):
        return cf.optimize(
            module(), inputs, coder=model, rounds=1, language="module", evaluator=f"spool:{folder}/spool", home=home
        )


# -- optimize -----------------------------------------------------------------------------------------------------


def test_a_live_module_becomes_a_verified_run(result: cf.RunResult, home: Path) -> None:
    assert result.state is RunState.DONE, result.message
    assert result.task.name == "scale_add"
    assert (home / "tasks" / "scale_add.py").read_text() == result.task.source
    assert "class ScaleAdd(nn.Module)" in result.task.source
    (attempt,) = result.attempts
    assert result.best is not None and result.best.id == attempt.id
    evaluation = result.evaluation(attempt)
    assert evaluation is not None and evaluation.verdict is Verdict.PASSED
    assert result.evaluation(0) == evaluation and result.profile(0) is None
    assert result.verification is not None and result.speedup == result.verification.evaluation.speedup
    assert result.baseline is not None and result.device == result.baseline.device
    assert result.kernel is not None and result.kernel.kernel == result.source(0)
    assert result.events()[-1].event.type == "run_finished"
    assert result.events(after=result.events()[-1].id) == []
    assert result.id in repr(result) and "scale_add" in repr(result)
    with pytest.raises(StoreError, match="has no attempt"):
        result.evaluation(7)


def test_a_run_is_a_table(result: cf.RunResult) -> None:
    frame = result.to_dataframe()
    assert frame.index.tolist() == [0] and frame.index.name == "round"
    (attempt,) = result.attempts
    row = frame.loc[0]
    assert (row["action"], row["verdict"], row["time_us"]) == ("draft", "PASSED", attempt.time_us)
    assert row["low"] <= row["speedup"] <= row["high"]
    assert row["usd"] == 0.0


def test_runs_are_listed_newest_first_and_loaded_by_any_beginning(result: cf.RunResult, home: Path) -> None:
    assert [run.id for run in cf.runs(home=home)][-1] == result.id
    assert cf.load_run(result.id[:8], home=home).id == result.id
    assert cf.runs(limit=1, home=home)[0].id == cf.load_run(home=home).id
    with pytest.raises(UsageError, match="no run"):
        cf.load_run("r0", home=home)


def test_a_run_that_is_done_stays_as_it_is(result: cf.RunResult) -> None:
    events = len(result.events())
    assert result.resume().state is RunState.DONE
    assert len(result.events()) == events


def test_it_waits_for_a_person_and_goes_on_also_inside_of_an_event_loop(tmp_path: Path) -> None:
    async def cell() -> cf.RunResult:
        with serving(tmp_path / "spool"):
            waiting = cf.optimize(
                TASK, coder="manual:", rounds=1, language="module", evaluator=f"spool:{tmp_path / 'spool'}"
            )
            assert waiting.state is RunState.SUSPENDED
            assert "cudaforge reply" in waiting.message and waiting.kernel is None and waiting.speedup is None
            assert waiting.to_dataframe()["verdict"].tolist() == [None]
            with waiting._store() as store:
                (call,) = store.calls(waiting.id)
                store.save_call(
                    call.model_copy(update={"state": type(call.state).DONE, "reply": kernel_reply("time_us=50")})
                )
            return waiting.resume()

    result = asyncio.run(cell())
    assert result.state is RunState.DONE and "Verified: 2.00x" in result.message
    assert result.kernel is not None and result.kernel.verified


def test_it_waits_for_a_spool_that_nobody_serves(tmp_path: Path) -> None:
    waiting = cf.optimize(TASK, coder="manual:", language="module", evaluator=f"spool:{tmp_path / 'spool'}")
    assert waiting.state is RunState.SUSPENDED and "reply" not in waiting.message
    assert (waiting.baseline, waiting.device, waiting.best) == (None, None, None)
    assert len(waiting.to_dataframe()) == 0 and "speedup" in waiting.to_dataframe()


def test_a_failure_is_raised_with_what_to_do_and_the_run_kept(tmp_path: Path) -> None:
    model = record(tmp_path / "empty")
    with serving(tmp_path / "spool"), pytest.raises(ModelError, match="recording has ended") as raised:
        cf.optimize(TASK, coder=model, language="module", evaluator=f"spool:{tmp_path / 'spool'}")
    failed = cf.load_run()
    assert failed.state is RunState.FAILED and "recording has ended" in failed.message
    assert f'cf.load_run("{failed.id}").resume()' in raised.value.hint


def test_cancelled_async_work_is_stored_as_stopped(tmp_path: Path) -> None:
    async def main() -> None:
        model = record(tmp_path / "recording", [kernel_reply("time_us=50")])
        arguments = {"coder": model, "language": "module", "evaluator": f"spool:{tmp_path / 'spool'}"}
        with serving(tmp_path / "spool"):
            task = asyncio.create_task(cf.optimize_async(TASK, **arguments, rounds=1))
            while not cf.runs():
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            stopped = cf.load_run()
            assert stopped.state is RunState.STOPPED and "resume()" in stopped.message
            again = await cf.optimize_async(TASK, **arguments, rounds=1)
            assert again.state is RunState.DONE

    asyncio.run(main())


def test_ctrl_c_gives_the_run_back_stopped(tmp_path: Path) -> None:
    """In a process of its own, where nobody serves the spool: it waits until the signal comes."""
    script = (
        "import sys, cudaforge as cf\n"
        "with cf.Session(cf.Task.load(sys.argv[1]), language='module', evaluator='spool:' + sys.argv[2]) as session:\n"
        "    session.edit('class ModelNew: ...')\n"
        "    print(session.id, flush=True)\n"
        "    try:\n"
        "        session.evaluate()\n"
        "    except KeyboardInterrupt:\n"
        "        print(session.run.state.value, session.result.message, flush=True)\n"
    )
    task = tmp_path / "task.py"
    task.write_text(TASK_SOURCE)
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(task), str(tmp_path / "spool")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        run_id = process.stdout.readline().strip()
        watched = cf.load_run(run_id)
        while not any(event.event.type == "stage_started" for event in watched.events()):
            pass
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert said.startswith("stopped A session between two steps")


def test_work_that_is_interrupted_before_it_began_ends(tmp_path: Path) -> None:
    script = """
import asyncio, os, signal, threading, time
from cudaforge.background import Background

background = Background()
background._loop.call_soon_threadsafe(time.sleep, 1)  # busy, so the work cannot begin yet
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

async def work():
    print("began")

try:
    background.run(work)
except KeyboardInterrupt:
    print("interrupted")
background.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "interrupted\n", done.stderr


def test_interrupted_work_may_still_give_a_result() -> None:
    async def work() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "stored"
        return "done"

    async def stubborn() -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return await work()

    assert background.run(stubborn) == "stored"

    async def empty() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        background.run(empty)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"coder": "gpt"}, "names no provider"),
        ({"rounds": 0}, "rounds: "),
        ({"budget_usd": -1.0}, "budget_usd: "),
        ({"preset": "bold"}, "Preset 'bold' is unknown"),
        ({"language": "rust"}, "Language 'rust' is unknown"),
        ({"evaluator": "moon"}, "Evaluator 'moon' is unknown"),
        ({"inputs": torch.zeros(1)}, "belong to a live module"),
        ({"module_or_path": nn.Linear(2, 2)}, "needs example inputs"),
        ({"module_or_path": "nowhere.py"}, "nowhere.py"),
    ],
)
def test_what_is_not_usable_is_said_before_anything_is_stored(arguments: dict[str, Any], why: str) -> None:
    given = {"module_or_path": TASK, "coder": "manual:", "language": "cpp", **arguments}
    with pytest.raises(UsageError, match=why) as raised:
        cf.optimize(given.pop("module_or_path"), **given)
    assert raised.value.hint or isinstance(raised.value, TaskError)
    assert cf.runs() == []


def test_a_task_file_of_the_users_is_never_replaced(tmp_path: Path) -> None:
    file, home = tmp_path / "mine.py", tmp_path / "home"
    task = python.task_of(nn.Linear(4, 4), torch.randn(2, 4), None, home, file)
    assert (task.name, file.read_text()) == ("mine", task.source)
    python.task_of(nn.Linear(4, 5), torch.randn(2, 4), None, home, file)  # one of ours may be
    file.write_text("precious = 1\n")
    with pytest.raises(UsageError, match="not a file that CudaForge wrote"):
        python.task_of(nn.Linear(4, 4), torch.randn(2, 4), None, home, file)
    for act in (nn.ReLU(), nn.Sequential(nn.ReLU()), nn.ReLU()):
        python.task_of(act, torch.ones(2, 4), None, home)
    wide = nn.ReLU(inplace=True)
    for act in (wide, wide):
        python.task_of(act, torch.ones(2, 4), None, home)
    assert len(list((home / "tasks").iterdir())) == 3


def test_both_twins_take_the_same() -> None:
    for name in ("optimize", "evaluate", "profile"):
        blocking, other = (inspect.signature(getattr(cf, n)).parameters for n in (name, f"{name}_async"))
        assert {n: p for n, p in blocking.items() if n != "progress"} == dict(other), name


# -- single kernels -----------------------------------------------------------------------------------------------


def test_a_kernel_is_evaluated_and_profiled_without_a_run(tmp_path: Path, result: cf.RunResult) -> None:
    broken = cf.Kernel.of("module", {"model.py": "class ModelNew: ...  # BUILD_FAILED"})
    given: dict[str, Any] = {"evaluator": f"spool:{tmp_path / 'spool'}"}
    assert result.kernel is not None
    with serving(tmp_path / "spool"):
        assert cf.evaluate(TASK, broken, **given).verdict is Verdict.BUILD_FAILED
        with pytest.raises(KernelError, match="Only a kernel that passes is profiled, and this one is BUILD_FAILED"):
            cf.profile(TASK, broken, **given)
        assert cf.profile(result.task, result.kernel, **given).kernel == result.kernel.id
        file = tmp_path / "mine.py"
        file.write_text(KERNEL)
        inputs = (torch.randn(64, 100), torch.randn(64, 100))
        assert cf.evaluate(module(), file, inputs=inputs, **given).time_us == 50.0
    assert cf.runs() == []


def test_a_spool_that_nobody_serves_is_asked_again_with_its_key(tmp_path: Path) -> None:
    kernel, spool = cf.Kernel.of("module", {"model.py": "class ModelNew: ...  # time_us=50"}), tmp_path / "spool"
    with pytest.raises(Suspended) as raised:
        cf.evaluate(TASK, kernel, evaluator=f"spool:{spool}")
    with serving(spool):
        found = cf.evaluate(TASK, kernel, evaluator=f"spool:{spool}", key=raised.value.waiting_for)
    assert found.time_us == 50.0


# -- a kernel in use ----------------------------------------------------------------------------------------------


@pytest.fixture
def kernel(result: cf.RunResult) -> cf.UsableKernel:
    assert result.kernel is not None
    return result.kernel


def test_a_kernel_takes_the_place_of_its_module(kernel: cf.UsableKernel) -> None:
    live, x, y = module(), torch.randn(64, 100), torch.randn(64, 100)
    fast = kernel.load(live)
    with torch.no_grad():
        assert torch.allclose(fast(x, y), live(x, y), atol=1e-6)
        live.weight.mul_(2)  # the same Parameter
        assert torch.allclose(fast(x, y), x * live.weight + y, atol=1e-6)
    assert fast.get_parameter("weight") is live.weight
    assert fast.training is live.training is False
    assert live.weight.requires_grad
    assert (kernel.language, kernel.source, set(kernel.files)) == ("module", KERNEL, {"model.py"})
    assert kernel.id in repr(kernel)


def variant(kernel: cf.UsableKernel, text: str, folder: Path) -> cf.UsableKernel:
    """Another kernel for the same task."""
    return cf.UsableKernel(cf.Kernel.of("module", {"model.py": text}), kernel.task, verified=False, folder=folder)


def test_a_kernel_of_torchs_own_operations_trains(kernel: cf.UsableKernel) -> None:
    live = module().train()
    kernel.load(live)(torch.randn(64, 100), torch.randn(64, 100)).sum().backward()
    assert live.weight.grad is not None


@pytest.mark.parametrize(
    "blind",
    [
        KERNEL.replace("        return ", "        with torch.no_grad():\n            return "),
        KERNEL.replace(
            "import torch\n", "import ctypes\n\nimport torch\n", 1
        ),  # what native code does, torch cannot know
    ],
    ids=["no grad", "native"],
)
def test_a_gradient_is_never_lost_without_a_word(kernel: cf.UsableKernel, blind: str, tmp_path: Path) -> None:
    live, x, y = module().train(), torch.randn(64, 100), torch.randn(64, 100)
    kernel = variant(kernel, blind, tmp_path)
    fast = kernel.load(live)
    with pytest.raises(RuntimeError, match="no backward pass"):
        fast(x, y)
    with torch.inference_mode():
        fast(x, y)
    fast.eval()
    with pytest.warns(UserWarning, match="carries no gradient"):
        fast(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast(x, y)  # said once
        live.requires_grad_(False)
        kernel.load(live).train()(x, y)


def test_a_module_that_changes_its_own_buffers_can_be_compared(kernel: cf.UsableKernel, tmp_path: Path) -> None:
    class Counting(ScaleAdd):
        def __init__(self, n: int) -> None:
            super().__init__(n)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return super().forward(x, y) * self.calls

    counting = KERNEL.replace(
        "        self.weight =", "        self.register_buffer('calls', torch.zeros(()))\n        self.weight ="
    )
    counting = counting.replace("        return torch", "        self.calls += 1\n        return self.calls * torch")
    live = Counting(100)
    variant(kernel, counting, tmp_path).load(live)
    assert live.calls == 0


def test_outputs_that_are_missing_are_seen(kernel: cf.UsableKernel) -> None:
    class Two(ScaleAdd):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
            return super().forward(x, y), x

    with pytest.raises(KernelError, match="gives 1 outputs where this module gives 2"):
        kernel.load(Two(100))


def test_a_kernel_for_another_kind_of_device_is_refused_before_it_runs(kernel: cf.UsableKernel, tmp_path: Path) -> None:
    triton = cf.UsableKernel(cf.Kernel.of("triton", {"model.py": KERNEL}), kernel.task, verified=False, folder=tmp_path)
    with pytest.raises(KernelError, match="is triton and the module lies on cpu"):
        triton.load(module())
    assert not list(tmp_path.iterdir())


def test_a_kernel_that_its_verification_found_wrong_is_not_handed_out(tmp_path: Path) -> None:
    slow, wrong = (
        f"```python\n{KERNEL.replace('time_us=50', what)}```\n" for what in ("time_us=120", "time_us=40 unstable")
    )
    model = record(tmp_path / "recording", [slow, wrong], [plan_reply()])
    with serving(tmp_path / "spool", ScriptedEvaluator()):
        found = cf.optimize(
            TASK, coder=model, rounds=2, language="module", evaluator=f"spool:{tmp_path}/spool", home=tmp_path / "home"
        )
    assert [a.verdict for a in found.attempts] == [Verdict.PASSED, Verdict.PASSED]
    assert found.best is not None and found.best.round == 0
    assert found.kernel is not None and "time_us=120" in found.kernel.source and not found.kernel.verified
    assert found.speedup is not None and found.speedup.eager.value < 1


def test_a_module_of_another_kind_is_refused_by_name(kernel: cf.UsableKernel, result: cf.RunResult) -> None:
    with pytest.raises(KernelError, match=r"weight is torch.float32 \(50,\) there and torch.float32 \(100,\) here"):
        kernel.load(module(50))
    with pytest.raises(KernelError, match=r"the module lacks weight"):
        kernel.load(nn.Identity())
    other = module()
    other.bias = nn.Parameter(torch.zeros(100))
    with pytest.raises(KernelError, match="the kernel lacks bias"):
        kernel.load(other)

    class Double(ScaleAdd):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x, y)

    with pytest.raises(KernelError, match="gives another output 0"):
        kernel.load(Double(100))
    assert kernel.load(Double(100), check=False) is not None


def test_one_tensor_under_several_names_is_one(result: cf.RunResult, tmp_path: Path) -> None:
    """On either side, as the engine compares it."""
    text = KERNEL.replace("self.weight = nn", "self.scale = self.weight = nn").replace(
        "x, self.weight", "x, self.scale"
    )
    aliased = cf.UsableKernel(cf.Kernel.of("module", {"model.py": text}), result.task, verified=False, folder=tmp_path)
    live = module()
    live.same = live.weight
    fast = aliased.load(live)
    assert fast.get_parameter("scale") is fast.get_parameter("weight") is live.weight


def test_a_kernel_that_does_not_build_here_says_so(result: cf.RunResult, tmp_path: Path) -> None:
    broken = cf.UsableKernel(cpp(kernel="int"), result.task, verified=False, folder=tmp_path)
    with pytest.raises(KernelError, match="does not build"):
        broken.load(module())


def test_a_saved_kernel_is_a_package(kernel: cf.UsableKernel, tmp_path: Path) -> None:
    folder = kernel.save(tmp_path / "scaled")
    assert cf.Kernel.load(folder) == kernel.kernel
    assert {"__init__.py", "kernel.json", "model.py"} <= {path.name for path in folder.iterdir()}


def test_a_kernel_with_its_own_backward_trains(tmp_path: Path) -> None:
    source = """
import torch
from torch import nn

class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, y):
        ctx.save_for_backward(x, weight)
        return x * weight + y

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        return grad * weight, (grad * x).sum(0), grad

class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x, y):
        return Scale.apply(x, self.weight, y)
"""
    own = cf.Kernel.of("module", {"model.py": source})
    live = module().train()
    fast = cf.UsableKernel(own, scale_add(), verified=False, folder=tmp_path).load(live)
    fast(torch.randn(64, 100), torch.randn(64, 100)).sum().backward()
    assert live.weight.grad is not None


@pytest.fixture(autouse=True)
def nothing_stays_imported() -> Iterator[None]:
    """Packages of kernels, whose folders go with the test."""
    yield
    for name in [name for name in sys.modules if name.startswith("cudaforge_kernel_")]:
        del sys.modules[name]
