"""A process that waits under a tool takes the kernel that comes, and reads nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.tasks import cpp, module, scale_add

from cudaforge.engine.builder import compile_kernel
from cudaforge.engine.hosts import SETS, CandidateHost, first_errors
from cudaforge.engine.recipes import NATURAL
from cudaforge.engine.supervisor import Supervisor
from cudaforge.engine.waiting import Waiting, clear, new_folder
from cudaforge.kernel import Kernel

TOOL = ("/usr/bin/env", "A_TOOL=is here")


@pytest.mark.parametrize("kernel", [cpp(), module("return torch.addcmul(y, x, self.weight)")], ids=["cpp", "module"])
def test_it_runs_a_kernel_that_came_after_its_start(tmp_path: Path, kernel: Kernel) -> None:
    supervisor = Supervisor(tmp_path, "cpu")
    waits = Waiting(new_folder(tmp_path / "profiles"), "cpu", TOOL, {})
    try:
        waits.settle()
        assert waits.alive
        task = scale_add()
        built = compile_kernel(kernel, supervisor.device, supervisor.cache, 120)
        reference = supervisor._reference(task, task.meta.workloads[0])
        reference.make_trials([1, 2], [NATURAL] * SETS, perturb=True)
        candidate = CandidateHost(kernel, built, reference, 60, waiting=waits)
        candidate.give_parameters()
        candidate.give_inputs(range(SETS))
        said = candidate.run()
        assert not any(first_errors(candidate.compare(i, said[i])) for i in range(SETS))
        candidate.close()
        assert not waits.alive
    finally:
        waits.close()
        supervisor.close()
    assert list((tmp_path / "profiles").iterdir()) == []


def test_it_sees_its_own_folder_and_no_other_kernels(tmp_path: Path) -> None:
    waits = Waiting(new_folder(tmp_path / "profiles"), "cpu", TOOL, {})
    other = new_folder(tmp_path / "profiles") / "secret.txt"
    other.write_text("another kernel's")
    other.chmod(0o644)
    waits.settle()
    look = f"""
import os
seen = []
for path in ({str(other)!r}, {str(waits.folder / "writes" / "new")!r}):
    try:
        open(path, "r" if path.endswith("txt") else "w").close()
        seen.append(os.path.basename(path))
    except OSError:
        pass
raise RuntimeError(f"saw {{seen}}, {{os.environ.get('A_TOOL')}}")
"""
    package = waits.package / "looks"
    package.mkdir()
    (package / "__init__.py").write_text(look)
    (package / "__init__.py").chmod(0o644)
    package.chmod(0o755)
    try:
        message = {"do": "load", "package": str(package), "device": "cpu", "dtype": "", "allow_tf32": False}
        message |= {"init": [], "init_slots": [], "init_seed": 1}
        with pytest.raises(Exception, match=r"saw \['new'\], is here"):
            waits.child.ask(message, 60)
    finally:
        waits.close()


def test_a_link_that_a_build_left_shows_nothing_that_its_reader_may_not_see(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("somebody else's")
    supervisor = Supervisor(tmp_path / "home", "cpu")
    waits = Waiting(new_folder(tmp_path / "profiles"), "cpu", TOOL, {})
    try:
        built = compile_kernel(module("return x"), supervisor.device, supervisor.cache, 120)
        left = Path(built.caches["TRITON_CACHE_DIR"])
        (left / "link").symlink_to(secret)
        os.mkfifo(left / "pipe")
        waits.take(built)
        copied = waits.reads / "triton"
        assert (copied / "link").is_symlink() and [path.name for path in copied.iterdir()] == ["link"]
    finally:
        waits.close()
        supervisor.close()


def test_folders_of_the_day_before_are_cleared(tmp_path: Path) -> None:
    old, new = new_folder(tmp_path), new_folder(tmp_path)
    os.utime(old, (0, 0))
    clear(tmp_path)
    assert not old.exists() and new.exists()
