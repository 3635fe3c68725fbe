from itertools import pairwise

import pytest

from cudaforge_profiling.ncu import PC_SAMPLING, command, parse_failure, parse_version, query_command


def values(arguments: list[str], option: str) -> list[str]:
    return [after for name, after in pairwise(arguments) if name == option]


def test_the_command_profiles_one_range_without_touching_clocks() -> None:
    arguments = command("/opt/ncu", "/tmp/r", ["a.sum", "b.sum"], nvtx_range="timed", launch_count=3)
    assert arguments[0] == "/opt/ncu"
    assert values(arguments, "--clock-control") == ["none"]
    assert values(arguments, "--target-processes") == ["all"]
    assert values(arguments, "--launch-count") == ["3"]
    assert values(arguments, "--check-exit-code") == ["no"]
    # Push/pop ranges of torch (default domain) and of the package nvtx (domain NVTX).
    assert "--nvtx" in arguments
    assert values(arguments, "--nvtx-include") == ["timed/", "NVTX@timed/"]
    assert arguments[-3:] == ["-f", "-o", "/tmp/r"]


def test_hot_lines_need_sampling_and_the_source() -> None:
    with_source = command("ncu", "r", ["a.sum"])
    assert values(with_source, "--metrics") == [",".join(["a.sum", *PC_SAMPLING])]
    assert values(with_source, "--import-source") == ["yes"]
    without = command("ncu", "r", ["a.sum"], source=False)
    assert values(without, "--metrics") == ["a.sum"]
    assert values(without, "--import-source") == ["no"]


def test_a_range_of_another_domain_and_no_range() -> None:
    assert values(command("ncu", "r", [], nvtx_range="mine@x/"), "--nvtx-include") == ["mine@x/"]
    assert "--nvtx" not in command("ncu", "r", [])


def test_options_are_passed_on() -> None:
    arguments = command(
        "ncu", "r", [], source=False, sections=["SourceCounters"], launch_skip=2, cache_control="none", rules=True
    )
    assert values(arguments, "--section") == ["SourceCounters"]
    assert values(arguments, "--launch-skip") == ["2"]
    assert values(arguments, "--cache-control") == ["none"]
    assert values(arguments, "--apply-rules") == ["yes"]
    assert "--metrics" not in arguments


def test_the_query_names_the_device() -> None:
    assert query_command("ncu", device=1) == ["ncu", "--query-metrics", "--devices", "1"]


def test_the_version_is_read() -> None:
    text = "NVIDIA (R) Nsight Compute Command Line Profiler\nVersion 2025.3.1.0 (build 36398880) (public-release)\n"
    assert parse_version(text) == "2025.3.1"
    assert parse_version("command not found") == ""


NO_KERNELS = "==WARNING== No kernels were profiled.\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance "
            "Counters on the target device 0.\n" + NO_KERNELS,
            "NVreg_RestrictProfilingToAdminUsers",
        ),
        ("==ERROR== Failed to initialize the profiler: LibraryNotLoaded\n" + NO_KERNELS, "LibraryNotLoaded"),
        ("==ERROR== Cuda driver is not compatible with Nsight Compute.\n", "newer driver"),
        ("==ERROR== Failed to find metric regex:^foo__bar(\\.sum)?$\n", "foo__bar"),
        ("==ERROR== Profiling failed because a driver resource was unavailable.\n", "DCGM"),
        ('==ERROR== Failed to profile "k" in process 12\n' + NO_KERNELS, '"k"'),
        ("==PROF== Connected to process 1\n==PROF== Disconnected from process 1\n" + NO_KERNELS, "no kernel launch"),
        ("==ERROR== Something new happened.\n", "Something new happened."),
    ],
)
def test_a_failure_becomes_one_sentence_with_its_first_cause(text: str, says: str) -> None:
    sentence = parse_failure(text)
    assert says in sentence
    assert "\n" not in sentence and sentence.endswith(".")


def test_success_is_no_failure() -> None:
    assert parse_failure('==PROF== Profiling "k" - 0: 0%....50%....100% - 7 passes\n==PROF== Report: r.ncu-rep\n') == ""


def test_what_the_program_prints_is_not_taken_for_ncus_failure() -> None:
    assert parse_failure("cannot open settings.json\nunknown option x\n==PROF== Report: r.ncu-rep\n") == ""
