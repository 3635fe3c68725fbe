import json
from pathlib import Path

import pytest

from cudaforge_profiling.metrics import METRIC_SETS, SPECS, base_name, parse_query_metrics, resolve

CHIPS: dict[str, list[str]] = json.loads(
    (Path(__file__).parent / "data" / "chip-metrics.json").read_text(encoding="utf-8")
)["chips"]

QUERIED = """\
==PROF== Connected
Device NVIDIA H100 80GB HBM3 (GH100)
------------------------------ ----------- --------------- ------------------------------
Metric Name                    Metric Type Metric Unit     Metric Description
------------------------------ ----------- --------------- ------------------------------
dram__bytes                    Counter     byte            # of bytes accessed in DRAM
dram__bytes_read               Counter     byte            # of bytes read from DRAM
TPC.TriageCompute.sm__x        Counter     cycle           not a name to ask for
lts__t_sector_hit_rate         Ratio                       proportion of L2 sector lookups that hit
sm__throughput                 Throughput  %               SM throughput, see breakdown: sm__a, sm__b
"""


def test_the_paper_set_is_the_papers_24() -> None:
    names = [spec.name for spec in METRIC_SETS["paper"]]
    assert len(names) == len(set(names)) == 24
    assert "sm__inst_executed_pipe_fp32.avg.pct_of_peak_sustained_active" in names
    assert "smsp__warp_issue_stalled_memory_dependency_per_warp_active.pct" in names
    assert "smsp__sass_average_branch_targets_threads_uniform.pct" in names


def test_a_table_of_metrics_is_read() -> None:
    assert parse_query_metrics(QUERIED) == {
        "dram__bytes",
        "dram__bytes_read",
        "lts__t_sector_hit_rate",
        "sm__throughput",
    }


@pytest.mark.parametrize(
    "text",
    ["dram__bytes                 # of bytes accessed in DRAM", '"dram__bytes.sum.per_second","Counter","byte"'],
)
def test_plain_lists_csv_and_suffixes_are_read(text: str) -> None:
    assert parse_query_metrics(text) == {"dram__bytes"}


def test_an_error_lists_nothing() -> None:
    assert parse_query_metrics("==ERROR== ERR_NVGPUCTRPERM - The user does not have permission\n") == set()


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("metric_set", METRIC_SETS)
def test_nothing_is_asked_for_that_the_chip_lacks(chip: str, metric_set: str) -> None:
    names, notes = resolve(metric_set, CHIPS[chip])
    assert len(names) == len(set(names))
    assert [n for n in names if base_name(n) not in CHIPS[chip] and not n.startswith("launch__")] == []
    changed = [spec.name for spec in METRIC_SETS[metric_set] if spec.name not in names]
    assert len(notes) == len(changed)
    assert all(any(note.startswith(name) for note in notes) for name in changed)


def test_the_papers_missing_two_are_substituted_on_hopper() -> None:
    names, notes = resolve("paper", CHIPS["GH100"])
    assert len(names) == 24
    assert "sm__inst_executed_pipe_fma.avg.pct_of_peak_sustained_active" in names
    assert "smsp__warp_issue_stalled_lg_throttle_per_warp_active.pct" in names
    assert len(notes) == 2


def test_bytes_are_counted_on_consumer_blackwell_under_another_name() -> None:
    names, _ = resolve("core", CHIPS["GB202"])
    assert {"dram__bytes_op_read.sum", "dram__bytes_op_write.sum"} <= set(names)


@pytest.mark.parametrize("unknown", [None, set()])
def test_an_unreadable_list_still_avoids_what_no_chip_has(unknown: set[str] | None) -> None:
    names, notes = resolve("paper", unknown)
    assert len(names) == 24
    assert not any("pipe_fp32" in name or "memory_dependency" in name for name in names)
    assert "could not be read" in notes[0]


def test_a_metric_without_a_substitute_is_dropped_with_a_note() -> None:
    names, notes = resolve("core", set(CHIPS["GH100"]) - {"lts__t_bytes"})
    assert "lts__t_bytes.sum" not in names
    assert notes == ("lts__t_bytes.sum dropped: this chip does not have it.",)


def test_every_metric_and_substitute_says_what_it_means() -> None:
    for spec in SPECS.values():
        assert spec.meaning
        assert all(name in SPECS for name in spec.substitutes)


def test_an_unknown_set_is_refused() -> None:
    with pytest.raises(ValueError, match="core, paper"):
        resolve("full", None)
