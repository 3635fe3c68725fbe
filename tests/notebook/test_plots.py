"""Plots of real runs: what is drawn, with which units; and why there is no roofline where there is none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import matplotlib as mpl
import pytest
from support.recorded_home import GPU, NO_WIN, PASSED

from cudaforge.notebook.plots import history, roofline, why_no_roofline
from cudaforge.results import RunResult

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

Of = Callable[[str], RunResult]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def words_of(ax: Axes) -> str:
    ax.figure.canvas.draw()
    legend = ax.get_legend()
    said = [text.get_text() for text in ax.texts] + ([t.get_text() for t in legend.get_texts()] if legend else [])
    return "\n".join(said)


def test_history_shows_every_round_the_best_and_the_verified_speedup(of_run: Of) -> None:
    result = of_run(PASSED)
    ax = history(result)
    points = ax.containers[0].lines[0].get_xydata()
    timed = [(a.round, a.speedup.eager.value) for a in result.attempts if a.speedup]
    assert [tuple(point) for point in points] == timed
    said = words_of(ax)
    assert "✗ BUILD_FAILED" in said and "≠ INCORRECT" in said
    assert "verified 1.40x [1.37, 1.45]" in said and "best so far" in said
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("round", "speedup over eager (×)")
    assert ax.get_yscale() == "log"


def test_history_of_a_run_without_a_kernel_shows_its_failures(of_run: Of) -> None:
    assert words_of(history(of_run(NO_WIN))).count("INCORRECT") == 1


def test_plots_draw_on_the_axes_that_they_are_given(of_run: Of) -> None:
    _, axes = plt.subplots(1, 2)
    assert history(of_run(GPU), axes[0]) is axes[0]
    assert roofline(of_run(GPU), axes[1]) is axes[1]
    assert plt.get_fignums() == [1]


def test_a_roofline_has_the_kernels_below_the_measured_roofs(of_run: Of) -> None:
    result = of_run(GPU)
    ax = roofline(result)
    profiled = [(a.round, p) for a in result.attempts if (p := result.profile(a))]
    said = words_of(ax)
    assert all(f"#{number}" in said for number, _ in profiled)
    assert "copy 3.0 TB/s" in said and "tf32 430.5 TFLOP/s" in said and "floor" in said
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("arithmetic intensity (FLOP/B)", "achieved (FLOP/s)")
    roof = profiled[-1][1].roofline
    assert roof and roof.flops
    (point,) = [line for line in ax.lines if line.get_ydata()[0] == roof.achieved_flops_per_s]
    assert point.get_xdata()[0] == roof.flops / roof.bytes
    assert ax.get_ylim()[1] > max(profiled[-1][1].device.ceilings.flops_per_s.values())


def test_where_there_is_no_roofline_the_axes_say_why(of_run: Of) -> None:
    assert "No roofline: no kernel of this run was profiled." in words_of(roofline(of_run(NO_WIN)))
    assert "cannot be counted" in words_of(roofline(of_run(PASSED))).replace("\n", " ")
    result = of_run(GPU)
    profile = next(p for a in result.attempts if (p := result.profile(a)))
    bare = profile.device.model_copy(update={"ceilings": type(profile.device.ceilings)()})
    assert "ceilings" in why_no_roofline([(0, profile.model_copy(update={"device": bare}))])
    assert "bytes" in why_no_roofline([(0, profile.model_copy(update={"roofline": None}))])


def test_without_matplotlib_a_plot_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from cudaforge.errors import UsageError\n"
        "from cudaforge.notebook.plots import history\n"
        "try: history(None)\n"
        "except UsageError as error: print(error.message, error.hint)"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said == "A plot needs matplotlib. Install it: pip install 'cudaforge[notebook]'\n"
