import pytest

from cudaforge_profiling.roofline import floor, peak_flops, roofline
from cudaforge_profiling.types import Ceilings

CEILINGS = Ceilings(copy_bytes_per_s=2e12, flops_per_s={"float32": 50e12, "tf32": 400e12, "bfloat16": 800e12})


def test_a_copy_is_bound_by_memory() -> None:
    assert floor(2_000_000_000, 1_000_000, "float32", CEILINGS) == (pytest.approx(1000.0), "memory")


def test_a_matrix_product_is_bound_by_arithmetic() -> None:
    assert floor(1_000_000, 800_000_000_000, "torch.bfloat16", CEILINGS) == (pytest.approx(1000.0), "compute")


def test_split_products_on_tensor_cores_lower_the_floor_of_float32() -> None:
    assert peak_flops("float32", CEILINGS) == pytest.approx(400e12 / 3)
    assert peak_flops("float32", Ceilings(flops_per_s={"float32": 50e12})) == 50e12


def test_operations_that_cannot_be_counted_leave_the_memory_floor() -> None:
    assert floor(2_000_000, None, "float32", CEILINGS) == (pytest.approx(1.0), "memory")
    assert floor(2_000_000, 10**15, "int64", CEILINGS) == (pytest.approx(1.0), "memory")


def test_without_ceilings_there_is_no_floor() -> None:
    assert floor(1, 1, "float32", Ceilings()) == (None, "unknown")
    assert roofline(1, 1, "float32", Ceilings(), 5.0).share_of_floor is None


def test_the_roofline_says_what_was_reached() -> None:
    line = roofline(2_000_000_000, 4_000_000_000, "float32", CEILINGS, 2000.0)
    assert line.floor_us == pytest.approx(1000.0)
    assert line.bound == "memory"
    assert line.share_of_floor == pytest.approx(0.5)
    assert line.achieved_bytes_per_s == pytest.approx(1e12)
    assert line.achieved_flops_per_s == pytest.approx(2e12)


def test_an_untimed_kernel_has_a_floor_only() -> None:
    line = roofline(2_000_000, None, "float32", CEILINGS)
    assert line.floor_us == pytest.approx(1.0)
    assert (line.achieved_bytes_per_s, line.achieved_flops_per_s, line.share_of_floor) == (None, None, None)
