import pytest

from cudaforge_profiling.demangle import demangle, short_name


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
