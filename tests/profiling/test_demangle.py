import pytest

from cudaforge_profiling.demangle import demangle, readable, short_name


def test_mangled_names_become_readable() -> None:
    assert demangle("_Z5scalePfi") == "scale(float*, int)"


@pytest.mark.parametrize("name", ["main", "_Znonsense", ""])
def test_what_cannot_be_read_stays(name: str) -> None:
    assert demangle(name) == name


@pytest.mark.parametrize(
    ("full", "short"),
    [
        ("scale(float*, int)", "scale"),
        ("void scale<4, float>(float const*)", "scale<4, float>"),
        ("void (anonymous namespace)::k<64>(float const*, float*)", "(anonymous namespace)::k<64>"),
        ("void k<void (*)(int)>(void (*)(int))", "k<void (*)(int)>"),
        ("scale", "scale"),
        ("(anonymous)", "(anonymous)"),
    ],
)
def test_short_names_keep_template_arguments_only(full: str, short: str) -> None:
    assert short_name(full) == short


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("_Z5scalePfi", "scale"),
        (
            "_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_11FillFunctorIfEES",
            "at::native::vectorized_elementwise_kernel",
        ),
        ("_Z16gemmSN_TN_kernelIfLi128ELi16ELi2ELi4E", "gemmSN_TN_kernel"),
        ("ampere_sgemm_128x64_tn", "ampere_sgemm_128x64_tn"),
        ("[memcpy]", "[memcpy]"),
        ("_Znonsense", "_Znonsense"),
    ],
)
def test_a_name_that_was_cut_still_says_what_it_is(name: str, plain: str) -> None:
    assert readable(name) == plain
