"""Reading reports. The actions here answer like those of ncu_report, from plain data; gpu/ reads real ones."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cudaforge_profiling import report
from cudaforge_profiling.report import ReportError, hot_lines, read, to_frame
from cudaforge_profiling.types import Launch, Metric

KERNEL = "line one\n  float x = a[i];\n  b[i] = x;\n"


@dataclass
class Place:
    file: str
    number: int

    def file_name(self) -> str:
        return self.file

    def line(self) -> int:
        return self.number


@dataclass
class Counts:
    """A metric whose instances are samples at instruction addresses."""

    samples: dict[int, int]

    def has_correlation_ids(self) -> bool:
        return bool(self.samples)

    def correlation_ids(self) -> "Addresses":
        return Addresses(list(self.samples))

    def num_instances(self) -> int:
        return len(self.samples)

    def as_uint64(self, index: int | None = None) -> int:
        return sum(self.samples.values()) if index is None else list(self.samples.values())[index]


@dataclass
class Addresses:
    values: list[int]

    def as_uint64(self, index: int) -> int:
        return self.values[index]


@dataclass
class Scalar:
    number: float | int | str
    text: str = ""

    def has_value(self) -> bool:
        return True

    def value(self) -> float | int | str:
        return self.number

    def unit(self) -> str:
        return self.text

    def as_double(self) -> float:
        return float(self.number)


@dataclass
class Action:
    metrics: dict[str, Scalar | Counts]
    places: dict[int, Place] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    mangled: str = "_Z5scalePfi"
    NameBase_MANGLED = 2
    NameBase_DEMANGLED = 1

    def name(self, base: int = 0) -> str:
        return {0: "scale", 1: "void scale(float *, int)", 2: self.mangled}[base]

    def metric_names(self) -> tuple[str, ...]:
        return tuple(self.metrics)

    def metric_by_name(self, name: str) -> Scalar | Counts | None:
        return self.metrics.get(name)

    def source_info(self, address: int) -> Place | None:
        return self.places.get(address)

    def source_files(self) -> dict[str, str]:
        return self.files


STALLED = "smsp__pcsamp_warps_issue_stalled_"


def sampled() -> Action:
    """1,000 samples: 700 at line 2, 200 at line 3, 100 in a header."""
    return Action(
        metrics={
            f"{STALLED}long_scoreboard": Counts({16: 600, 32: 50, 64: 100}),
            f"{STALLED}selected": Counts({16: 100, 48: 150}),
            # The same samples counted again: must not count.
            f"{STALLED}long_scoreboard_not_issued": Counts({16: 600}),
        },
        places={
            16: Place("/build/x/kernel.cu", 2),
            32: Place("/build/x/kernel.cu", 3),
            48: Place("/build/x/kernel.cu", 3),
            64: Place("/usr/include/helper.cuh", 9),
        },
    )


def test_samples_are_shared_out_over_source_lines() -> None:
    lines, notes = hot_lines([sampled()], {"kernel.cu": KERNEL})
    assert [(h.file, h.line, h.share, h.text) for h in lines] == [
        ("kernel.cu", 2, 0.7, "float x = a[i];"),
        ("kernel.cu", 3, 0.2, "b[i] = x;"),
        ("helper.cuh", 9, 0.1, ""),
    ]
    assert lines[0].stalls == {"long_scoreboard": 0.8571, "selected": 0.1429}
    assert notes == ()


def test_several_launches_add_up() -> None:
    lines, _ = hot_lines([sampled(), sampled()], {})
    assert [h.share for h in lines] == [0.7, 0.2, 0.1]


def test_the_reports_own_source_is_used_where_none_is_given() -> None:
    action = sampled()
    action.files = {"/build/x/kernel.cu": KERNEL, "/usr/include/helper.cuh": ""}
    assert hot_lines([action], {})[0][0].text == "float x = a[i];"


def test_samples_without_lines_say_how_to_get_them() -> None:
    action = sampled()
    action.places = {}
    lines, (note,) = hot_lines([action], {})
    assert lines == ()
    assert "-lineinfo" in note


def test_a_part_without_lines_is_said() -> None:
    action = sampled()
    del action.places[64]
    lines, (note,) = hot_lines([action], {})
    assert [h.share for h in lines] == [0.7, 0.2]
    assert note.startswith("10%")


def test_few_samples_are_said() -> None:
    action = Action({f"{STALLED}wait": Counts({16: 5})}, {16: Place("kernel.cu", 1)})
    assert "Only 5 samples" in hot_lines([action], {})[1][0]


def test_nothing_sampled_gives_nothing() -> None:
    assert hot_lines([Action({"a.sum": Scalar(1)})], {}) == ((), ())


def launch_of(action: Action, entry_functions: tuple[str, ...] = (), metrics: list[str] | None = None) -> Launch:
    return report._launch(0, action, entry_functions, metrics)


def test_a_launch_has_its_geometry_and_metrics() -> None:
    action = Action(
        {
            "gpu__time_duration.sum": Scalar(6000.0, "ns"),
            **{f"launch__grid_dim_{axis}": Scalar(n) for axis, n in zip("xyz", (128, 2, 1), strict=True)},
            **{f"launch__block_dim_{axis}": Scalar(n) for axis, n in zip("xyz", (32, 8, 1), strict=True)},
            "dram__bytes_read.sum": Scalar(4096.0, "byte"),
            "device__attribute_chip": Scalar(1),
        }
    )
    launch = launch_of(action)
    assert (launch.name, launch.mangled) == ("scale", "_Z5scalePfi")
    assert (launch.grid, launch.block, launch.duration_us) == ((128, 2, 1), (32, 8, 1), 6.0)
    assert launch.metrics["dram__bytes_read.sum"] == Metric(name="dram__bytes_read.sum", value=4096.0, unit="byte")
    assert "device__attribute_chip" not in launch.metrics
    assert set(launch_of(action, metrics=["dram__bytes_read.sum", "absent"]).metrics) == {"dram__bytes_read.sum"}


@pytest.mark.parametrize(("entries", "own"), [((), True), (("_Z5scalePfi",), True), (("_Z5otherv",), False)])
def test_a_launch_is_the_candidates_own_by_its_mangled_name(entries: tuple[str, ...], own: bool) -> None:
    assert launch_of(Action({}), entries).own is own


def test_stalls_come_from_samples_first() -> None:
    assert launch_of(sampled()).stalls == {"long_scoreboard": 0.75, "selected": 0.25}


def test_stalls_come_from_ratios_where_nothing_was_sampled() -> None:
    action = Action(
        {
            "smsp__average_warps_active_per_issue_active.ratio": Scalar(20.0),
            "smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio": Scalar(5.0),
            "smsp__average_warps_issue_stalled_wait_per_issue_active.ratio": Scalar(1.0),
        }
    )
    assert launch_of(action).stalls == {"barrier": 0.25, "wait": 0.05}


def test_stalls_come_from_the_papers_percentages() -> None:
    action = Action({"smsp__warp_issue_stalled_barrier_per_warp_active.pct": Scalar(30.0)})
    assert launch_of(action).stalls == {"barrier": 0.3}


@pytest.mark.parametrize("content", [b"", b"hello", b"NVR\x00\x00\x00", bytes(range(256)) * 64])
def test_what_is_not_a_report_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.ncu-rep"
    path.write_bytes(content)
    with pytest.raises(ReportError, match=r"x\.ncu-rep"):
        read(path)


def test_a_missing_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="cannot be read"):
        read(tmp_path / "x.ncu-rep")


def test_a_frame_has_one_typed_row_a_launch() -> None:
    frame = to_frame(
        [
            Launch(
                index=0,
                name="a",
                grid=(2, 1, 1),
                duration_us=1.5,
                metrics={"x.sum": Metric(name="x.sum", value=7, unit="byte")},
                stalls={"wait": 0.5},
            ),
            Launch(index=1, name="b", own=False, metrics={"y": Metric(name="y", value="text")}),
        ]
    )
    assert list(frame["name"]) == ["a", "b"]
    assert frame["grid_x"].tolist() == [2, 1]
    types = {name: str(frame[name].dtype) for name in ("index", "own", "duration_us", "x.sum", "y", "stall.wait")}
    assert types == {
        "index": "Int64",
        "own": "boolean",
        "duration_us": "Float64",
        "x.sum": "Int64",
        "y": "string",
        "stall.wait": "Float64",
    }
    assert frame["x.sum"].isna().tolist() == [False, True]
    assert frame.attrs["units"] == {"x.sum": "byte", "y": ""}


def test_a_frame_of_nothing_has_its_columns() -> None:
    frame = to_frame([])
    assert len(frame) == 0
    assert "duration_us" in frame


def test_a_real_report_of_an_h200_is_read_without_a_gpu() -> None:
    """Written by ncu 2025.3.1 on an H200 with the `core` set, around a copy that doubles (tests/profiling/gpu)."""
    seen = read(Path(__file__).parent / "data" / "scale-h200.ncu-rep", entry_functions=["_Z5scalePKfPfi"])
    (launch,) = seen.launches
    assert (launch.name, launch.own, launch.grid, launch.block) == ("scale", True, (264, 1, 1), (512, 1, 1))
    assert launch.duration_us == pytest.approx(248.768)
    assert max(launch.stalls, key=lambda reason: launch.stalls[reason]) == "long_scoreboard"
    assert sum(launch.stalls.values()) == pytest.approx(1, abs=0.01)
    top = seen.hot_lines[0]
    assert (top.file, top.line, top.text) == ("kernel.cu", 8, "b[i] = x * 2.0f;") and top.share > 0.9
