"""Whose code does the work: the candidate's own, or a library's.

GPU: every launch of a few traced calls, by CUPTI (trace.py, in the candidate's process, so its word is checked: they
run on inputs that nobody has seen, after secretly many others, one of their outputs is compared, and what ran while
traced must be about as fast as what ran behind the gate). CPU: the supervisor stops the process at random
moments of a long batch and looks where its threads stand; nothing of that happens in the candidate's process.

Allocating, reshaping, copying and filling are free.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import itertools
import json
import mmap
import os
import random
import re
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from cudaforge.engine import confine, frozen, verdicts
from cudaforge.engine.bench import StoppedBench
from cudaforge.engine.builder import Built
from cudaforge.engine.hosts import CandidateFailed, CandidateHost, first_errors
from cudaforge.engine.session import Session
from cudaforge.engine.symbols import Symbols, function_at
from cudaforge.evaluation import Attribution, Share
from cudaforge.kernel import Kernel, Language

ALLOWED_GPU, ALLOWED_CPU = 0.1, 1 / 3
"""Share of the time that libraries may take. On the CPU the samples also hit what every call of torch costs."""
SMALL_US = 15.0
"""Library time of a CPU call that is no more than the cost of calling torch at all."""
LEAST_OWN_GPU = 0.1
"""Share of the device time that the candidate's own kernels take at least: copies are free beside work, not in its
place."""
TRACED_CALLS, MOST_BEFORE = 5, 16
"""Traced calls, and how many others come before them at most."""
SAMPLES, SAMPLED_S, STOPS = 40, 2.0, 5
"""Moments at which the process is looked at, the wall time for it, and how many in one batch."""
ENOUGH, LONGEST_S, FEWEST = 16, 4.0, 8
"""Samples in own and library code that are waited for, and how long; with fewer than FEWEST nothing can be said."""
FEWEST_ALIKE, LONGEST_ALIKE_S = 3, 12.0
"""The same where none was in own code: fewer are enough then, and waited for longer."""
SLOWER_WHEN_TRACED, FASTER_WHEN_TRACED, SLACK_US, LAUNCH_US = 2.0, 0.2, 5.0, 3.0
"""Kernels that take so much longer, or with the gaps between launches so much less, while traced than the whole call
behind the gate are not the ones that ran there."""
WATCHED_CPU = 2.5
"""How much more processor time a call may take while it is watched; being stopped costs some."""

FREE = re.compile(
    r"copy_kernel|direct_copy|CatArrayBatchedCopy|FillFunctor|fill_kernel|\[memcpy\]|\[memset\]|copyKernel|"
    r"elementwise_kernel_with_index|arange_kernel|cat_serial_kernel|__memmove|__memcpy|__memset"
)
LIBRARY_NAMES = re.compile(
    r"nvjet_|xmma_(gemm|fprop|dgrad|wgrad)|cublas|cudnn|cutlass_\d+_|"
    r"^(ampere|volta|turing|pascal|maxwell)_\w*?([shdczi]\d*gemm|cudnn)\w*_\d+x\d+|^triton_((poi|red|per|tem|mm|for|spl|unk)_(fused_|_?\d+$)|$)|"
    r"at6native|at::native|implicit_convolve_sgemm|convolve_common_engine|pytorch_flash|fmha_cutlass|cusparse|cufft|"
    r"ncclKernel|ncclDev|^_Z\d+(regular|vector|composite|multi|bluestein)\w*_fft\w*I"
)
"""Names that only libraries' kernels have; a candidate's own kernel that bears one is not taken for its own. What
cuBLAS calls dot_kernel or gemv2T_kernel_val has cublas in its template arguments, and cuFFT's are all templates;
anybody may call a kernel so. What torch.compile makes is found in the candidate's own cache, so it goes by its name,
too."""
LIBRARY_FILES = re.compile(
    r"/libtorch_cpu|/libtorch_cuda|mkl|openblas|/numpy/|/scipy|libdnnl|libblas|liblapack|xnnpack"
)
NEUTRAL_FILES = re.compile(
    r"(libgomp|libiomp|libomp|libc|libm|libmvec|libstdc\+\+|libgcc_s|ld-linux.*|libpthread|libpython.*|libtorch_python|libc10.*|"
    r"libtvm_ffi.*|libcuda|libcudart|libdl|librt)(-[\da-f]+)?[-.\d]*(\.so[.\d]*)?$|python[\d.]*$|\[vdso\]$|.*\.cpython-.*\.so$|"
    r"core.*\.so$"
)
"""Names of files that are waiting, interpreting or dispatching: neither side's work."""
NOT_INSTALLED = re.compile(r"^/dev/shm/|^/memfd:|^/SYSV|\(deleted\)$")
"""Files that a process can have made for itself, wherever the system's folders lie."""
STUB = re.compile(r"(\d+)(__device_stub_)")
"""nvcc's host function for a kernel, with its length: its name holds the kernel's on the device, which differs from
that on the host where it is static, as CUB's are. Where it was inlined, variables of it still bear the name."""
LIBRARY_FUNCTIONS = re.compile(r"^_?mkl_|dnnl|openblas|at6native|at::native|^cblas_|^[sdcz]gemm_\w+_[A-Z]+$")
"""Functions that are a library's even in a file of the candidate's own."""
LONGEST_FUSED = 128
"""TorchScript cuts names at fewer characters."""
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/|#[^\n]*", re.DOTALL)


@dataclass
class _Tally:
    own: float = 0.0
    library: float = 0.0
    free: float = 0.0
    names: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))

    def add(self, kind: str, name: str, amount: float) -> None:
        setattr(self, kind, getattr(self, kind) + amount)
        self.names[kind, name] += amount

    def result(self, how: str, launches: int = 0) -> Attribution:
        total = self.own + self.library + self.free
        top = [
            Share(name=name[:200], kind=kind, share=amount / total)
            for (kind, name), amount in heapq.nlargest(8, self.names.items(), key=lambda item: item[1])
            if total
        ]
        return Attribution(
            how=how,
            own=self.own / total if total else 0.0,
            library=self.library / total if total else 0.0,
            free=self.free / total if total else 0.0,
            top=tuple(top),
            launches=launches,
            samples=0 if launches else total,
        )


def on_gpu(candidate: CandidateHost, kernel: Kernel, built: Built) -> Attribution | None:
    """Attribution of a few traced calls, each on fresh inputs; the output of one is compared. None where CUPTI cannot
    be had on this machine at all. CandidateFailed where the process gives no account, or another output when traced."""
    landing = candidate.buffers["landing0"]
    landing.poison()
    reference, rng = candidate.reference, random.SystemRandom()
    count = min(TRACED_CALLS + 1, reference.capacity)
    reference.fill(count)
    candidate.give_inputs(range(count))
    calls = count - 1
    landed = rng.randrange(calls)
    message = {
        "do": "trace",
        "what": "kernel",
        "buffer": "slots",
        "sets": [candidate.entry(i) for i in range(count)],
        "before": rng.randrange(MOST_BEFORE + 1),
        "calls": calls,
        "landed": landed,
    }
    reply = candidate.ask("trace", {**message, "landing": "landing0", "landing_slots": landing.wire()})
    if "why" in reply:
        known = {**message, "what": "eager", "buffer": "source", "sets": [reference.entry(i) for i in range(count)]}
        if "why" in reference.ask("trace", known):
            return None
        raise CandidateFailed(
            "rule", f"its launches cannot be traced: {str(reply['why'])[:300]}", stage="hides its work"
        )
    reference.expect(landed)
    if errors := first_errors(candidate.compare(0, reply.get("output"))):
        text = f"right when checked, wrong when traced: {verdicts.describe_errors(errors)}"
        raise CandidateFailed("rule", text, stage="traced calls are wrong")
    tally, busy, counts = _Tally(), [], []
    own = own_kernels(kernel, built)
    try:
        for call in reply["calls"]:
            spans: dict[str, list[tuple[int, int]]] = {"library": [], "own": [], "free": []}
            for name, start, end in call:
                kind = "own" if is_own(name, own, kernel) else "free" if FREE.search(name) else "library"
                tally.names[kind, name] += max(int(end) - int(start), 0) * 1e-3
                spans[kind].append((int(start), int(end)))
            library, own_time, free = _times(spans)
            tally.library += library
            tally.own += own_time
            tally.free += free
            busy.append(library + own_time + free)
            counts.append(len(call))
        found = tally.result("CUPTI, traced calls", launches=round(statistics.median(counts)))
    except (KeyError, TypeError, ValueError, statistics.StatisticsError):
        raise CandidateFailed("error", "the account of the launches is garbled.", stage="trace") from None
    return found.model_copy(update={"traced_us": statistics.median(busy)})


def is_own(name: str, own: set[str], kernel: Kernel) -> bool:
    """Whether a launched kernel is the candidate's: in a binary of its own, or compiled at run time from its source."""
    if LIBRARY_NAMES.search(name):
        return False
    if name in own:
        return True
    plain = _plain(name)
    written = (COMMENT.sub("", text) for text in kernel.files.values())
    claimed = plain and any(re.search(rf"__global__[^;{{]*\b{re.escape(plain)}\s*\(", text) for text in written)
    return bool(claimed) and not _is_named_by_operators(plain) and not _is_in_a_library(name)


def _plain(name: str) -> str:
    """A function's own name: the last part of a mangled one before its template's and call's arguments."""
    if not name.startswith("_Z"):
        return re.sub(r"\W.*$", "", name)
    at, plain = 3 if name.startswith("_ZN") else 2, ""
    while part := re.compile(r"[LKV]*(\d+)").match(name, at):
        at = part.end() + int(part[1])
        plain = name[part.end() : at]
    return plain


def _is_named_by_operators(plain: str) -> bool:
    """Whether it is called as TorchScript calls what it fuses, a row of operators: fused_mul_add_leaky_relu. A long
    name is cut, and its hash follows."""
    import torch

    if not plain.startswith("fused_") or len(plain) > LONGEST_FUSED:
        return False
    rest = plain.removeprefix("fused_")
    cut = re.fullmatch(r"(.*)_\d{6,}", rest)
    parts = (cut[1] if cut else re.sub(r"_\d+$", "", rest)).split("_")
    reached = {0}  # so many parts, from the first on, are a row of operators
    for end in range(1, len(parts) + 1):
        names = ("_".join(parts[start:end]) for start in reached)
        if any(name and (hasattr(torch, name) or hasattr(torch.ops.aten, name)) for name in names):
            reached.add(end)
    return len(parts) in reached or bool(cut and reached - {0})


@functools.cache
def _is_in_a_library(name: str) -> bool:
    """Whether a file of PyTorch's or CUDA's has a kernel of this mangled name, whatever a source claims. Plain names
    may be found anywhere."""
    import torch

    if not name.startswith("_Z"):
        return False
    package = Path(torch.__file__).parent
    for path in (*package.glob("lib/*.so*"), *package.parent.glob("nvidia/**/*.so*")):
        with (
            contextlib.suppress(OSError, ValueError),
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            if data.find(name.encode() + b"\0") >= 0:
                return True
    return False


def own_kernels(kernel: Kernel, built: Built) -> set[str]:
    """Names of the kernels in the candidate's own binaries: its library, its extensions, Triton's cache."""
    names = set(built.build.entry_functions)
    folders = [built.package, *(Path(path) for path in built.caches.values())]
    for folder in folders:
        for library in folder.rglob("*.so"):
            symbols = Symbols(library)
            names |= symbols.functions()
            names |= set(itertools.chain(*map(_behind_stub, symbols.strings_with("__device_stub_"))))
        for meta in folder.rglob("*.json"):
            try:
                data = json.loads(meta.read_text())
            except (OSError, ValueError):
                continue
            if isinstance(data, dict) and isinstance(data.get("name"), str):
                names.add(data["name"])
    return names


def _behind_stub(symbol: str) -> tuple[str, ...]:
    """The kernel's name in that of its stub: __device_stub__Z4statPf is _Z4statPf's, __device_stub__stat is stat's."""
    if not (found := STUB.search(symbol)):
        return ()
    whole = symbol[found.start(2) : found.start(2) + int(found[1])].removeprefix("__device_stub_")
    return whole, whole.removeprefix("_")


def starts_kernels_itself(kernel: Kernel) -> bool:
    """Whether its kernels may start others: it is linked for that, and CUPTI does not show those."""
    written = () if kernel.language is Language.CUDA else (COMMENT.sub("", text) for text in kernel.files.values())
    text = " ".join((*kernel.flags, *written))  # a Python-only kernel's flags stand in its source
    return "-rdc" in text or "relocatable-device-code" in text


def _times(spans: dict[str, list[tuple[int, int]]]) -> tuple[float, float, float]:
    """Microseconds that are the library's, the kernel's own, and free. Where several launches run, the moment is the
    library's if one of them is: what idles beside it does nothing."""
    library = _union(spans["library"])
    worked = _union(spans["library"] + spans["own"])
    busy = _union(spans["library"] + spans["own"] + spans["free"])
    return library * 1e-3, (worked - library) * 1e-3, (busy - worked) * 1e-3


def _union(spans: list[tuple[int, int]]) -> float:
    total, reached = 0, 0
    for start, end in sorted(spans):
        total += max(end - max(start, reached), 0)
        reached = max(reached, end)
    return total


def on_cpu(session: Session, built: Built) -> Attribution:
    """Attribution by where the threads stand when the process is stopped at random moments of ordinary batches: on
    fresh inputs, of the same length, and somewhere among the timed ones, so that nothing tells them from those.

    Only batches that cost about the processor time of timed ones count. On a busy machine OpenMP's threads spin while
    they wait for one that has lost its core; a kernel that does something else when it is looked at shows the same.
    """
    bench = session.kernel
    assert isinstance(bench, StoppedBench)
    child, rng, tally = bench.host.child, random.SystemRandom(), _Tally()
    order = list(range(bench.calls))
    expected_s = statistics.median(bench.samples_us) * 1e-6 * bench.calls
    timed_us = statistics.median(bench.cpu_s) * 1e6
    usual_us: list[float] = []
    unusual_us: list[float] = []
    seen, started = 0, time.monotonic()
    while True:
        elapsed = time.monotonic() - started
        longest_s = LONGEST_S if tally.own else LONGEST_ALIKE_S
        if (seen >= SAMPLES or elapsed > SAMPLED_S) and (tally.own + tally.library >= ENOUGH or elapsed > longest_s):
            break
        session.reference.fill(bench.calls)
        bench.give(range(bench.calls))
        before, standing = frozen.cpu_seconds(child.pid), []
        with bench.failures():
            child.post({"do": "batch", "what": bench.what, "order": order})
            child.go_on()
            for _ in range(STOPS):
                time.sleep(rng.uniform(0, expected_s / STOPS))
                child.stop()
                if child.channel.readable(0):
                    break
                files = frozen.mapped_files(child.pid)
                counters = frozen.program_counters(child.pid)
                standing.append([_stands_in(counter, files, built, str(child.scratch)) for counter in counters])
                child.go_on()
            child.go_on()
            child.answer(bench.timeout_s)
        child.stop()
        watched_us = (frozen.cpu_seconds(child.pid) - before) / bench.calls * 1e6
        if _differs_when_watched(watched_us, timed_us):
            unusual_us.append(watched_us)
            continue
        usual_us.append(watched_us)
        seen += len(standing)
        for kind, name in itertools.chain(*standing):
            if kind:
                tally.add(kind, name, 1.0)
    found = tally.result(f"{seen} samples of where the threads stand")
    watched_us = statistics.median(usual_us or unusual_us)
    return found.model_copy(update={"traced_us": watched_us, "timed_cpu_us": timed_us})


def _differs_when_watched(watched_us: float, timed_us: float) -> bool:
    return watched_us > WATCHED_CPU * timed_us + SMALL_US


def _stands_in(counter: int, files: list[frozen.Mapping], built: Built, scratch: str) -> tuple[str, str]:
    """own, library, free or "" for what is neither (waiting, interpreting); and the function or file."""
    if not counter:
        return "", ""
    for start, end, offset, path in files:
        if start <= counter < end:
            name = function_at(path, counter - start + offset) if path else "code that lies in no file"
            if any(path.startswith(root) for root in (str(built.package), *built.caches.values())):
                return ("library" if LIBRARY_FUNCTIONS.search(name) else "own"), name or Path(path).name
            neutral = not LIBRARY_FILES.search(path) and NEUTRAL_FILES.match(Path(path).name)
            if neutral and not path.startswith(scratch) and _is_installed(path):
                return "", path
            shown = name or Path(path).name.encode(errors="replace").decode()  # not any bytes are text
            return ("free" if FREE.search(name) else "library"), shown
    return "", ""


@functools.cache
def _installed_in() -> tuple[str, ...]:
    """Folders that a cage may read and not write, as the kernel calls them."""
    return tuple(f"{os.path.realpath(root)}/" for root in confine.system_roots())


def _is_installed(path: str) -> bool:
    """Whether a mapped file was there before the candidate: only then its name says what it is."""
    return path == "[vdso]" or (path.startswith(_installed_in()) and not NOT_INSTALLED.search(path))


def rule(found: Attribution, time_us: float, *, gpu: bool, untraced: bool = False) -> str:
    """Why an attribution is foul play; empty where it is not. `untraced`: a call may take long for what no trace of a
    GPU shows, the host's work or kernels that kernels start."""
    shown = "; ".join(f"{share.share:.0%} {share.name}" for share in found.top if share.kind != "own")[:600]
    if gpu:
        least = found.traced_us + LAUNCH_US * found.launches + SLACK_US
        too_fast = least < FASTER_WHEN_TRACED * time_us and not untraced
        if found.traced_us > SLOWER_WHEN_TRACED * time_us + SLACK_US or too_fast:
            return (
                f"its kernels take {found.traced_us:.4g} us while traced and {time_us:.4g} us when timed: "
                "what was traced is not what was timed."
            )
        if found.library > ALLOWED_GPU:
            return f"{found.library:.0%} of the device time is spent in library kernels: {shown}"
        if found.own < LEAST_OWN_GPU:
            return f"{found.own:.0%} of the device time is spent in kernels of its own, the rest in copies: {shown}"
        return ""
    if _differs_when_watched(found.traced_us, found.timed_cpu_us):
        return (
            f"a call takes {found.traced_us:.4g} us of processor time while it is watched and {found.timed_cpu_us:.4g} "
            "us when timed: what was watched is not what was timed."
        )
    counted = (found.own + found.library) * found.samples
    few = counted < (FEWEST if found.own else FEWEST_ALIKE)
    if few or found.library * time_us <= SMALL_US:
        return ""
    if found.library > ALLOWED_CPU * (found.own + found.library):
        return f"{found.library:.0%} of the time is spent in library code: {shown}"
    return ""
