"""Replies as models write them."""

import pytest
from support.briefings import kernel

from cudaforge.agents.coder import parse_kernel
from cudaforge.errors import ReplyError
from cudaforge.kernel import Language

CU = "#include <x>\nvoid f() {}\nTVM_FFI_DLL_EXPORT_TYPED_FUNC(f, f);\n"
PY = "from .kernel import f\n\nclass ModelNew:\n    pass\n"
OLD_CU, OLD_PY = CU.replace("f()", "old()"), PY.replace("pass", "old = 1")
NEW, OLD = f"```cuda\n{CU}```\n```python\n{PY}```", f"```cuda\n{OLD_CU}```\n```python\n{OLD_PY}```"


def cuda(reply: str) -> dict[str, str]:
    return parse_kernel(reply, Language.CUDA).files


BOTH = {
    "names in backticks": f"`kernel.cu`:\n```cuda\n{CU}```\n`model.py`:\n```python\n{PY}```",
    "names in bold": f"**kernel.cu**\n\n```cuda\n{CU}```\n\n**`model.py`**\n\n```python\n{PY}```",
    "names as headings": f"### kernel.cu\n```cpp\n{CU}```\n### File 2: `model.py`\n```py\n{PY}```",
    "names in the info string": f"```cuda kernel.cu\n{CU}```\n```python model.py\n{PY}```",
    "names as attributes": f'```cuda title="kernel.cu"\n{CU}```\n```python {{file=model.py}}\n{PY}```',
    "names with a colon": f"```cuda:kernel.cu\n{CU}```\n```python:src/model.py\n{PY}```",
    "the name alone as info": f"```kernel.cu\n{CU}```\n```model.py\n{PY}```",
    "no names": f"Here you are.\n```c++\n{CU}```\nand\n```python\n{PY}```\nDone.",
    "no info at all": f"```\n{CU}```\n```\n{PY}```",
    "files in the other order": f"```python\n{PY}```\n```cuda\n{CU}```",
    "capital languages": f"```CUDA\n{CU}```\n```Python\n{PY}```",
    "other names": f"`softmax_kernel.cu`\n```cuda\n{CU}```\n`new_model.py`\n```python\n{PY}```",
    "tildes": f"~~~cuda\n{CU}~~~\n~~~python\n{PY}~~~",
    "long fences": f"````cuda\n{CU}````\n`````python\n{PY}`````",
    "thinking first": f"<think>\n{OLD}\n</think>\n{NEW}",
    "thinking without its start": f"{OLD}\nhm</think>\n{NEW}",
    "thinking that never ends": f"<thinking>ok\n{NEW}",
    "last version wins": f"{OLD}\nWait, better:\n{NEW}",
    "a cut-off later version loses": f"```cuda\n{CU}```\n```python\n{PY}```\nBetter:\n```cuda\n{OLD_CU}",
    "an empty later version loses": f"```cuda\n{CU}```\n```python\n{PY}```\n`kernel.cu`\n```cuda\n\n```",
    "snippets beside the files": (
        f"The idea:\n```cuda\nx += 1;\n```\n```cuda\n{CU}```\n```python\n{PY}```\nIn `kernel.cu` I changed:\n"
        "```cuda\ny += 2;\n```\nTry it:\n```python\nModelNew()(x)\n```\n```bash\nnvcc kernel.cu\n```\n```json\n{}\n```"
    ),
    "a line about both files": f"`kernel.cu` for `model.py`:\n```cuda\n{CU}```\nuses kernel.cu:\n```python\n{PY}```",
    "a forgotten closing fence": f"```cuda\n{CU}TAIL\n```python\n{PY}```\n`kernel.cu`\n```cuda\n{CU}```",
    "an outer block": f"```markdown\n`kernel.cu`\n```cuda\n{CU}```\n`model.py`\n```python\n{PY}```\n```",
    "an indented list": (
        "1. `kernel.cu`\n\n   ```cuda\n"
        + "".join(f"   {line}\n" for line in CU.splitlines())
        + "   ```\n2. `model.py`\n\n   ```python\n"
        + "".join(f"   {line}\n" if line else "\n" for line in PY.splitlines())
        + "   ```\n"
    ),
    "windows": f"`kernel.cu`:\n```cuda\n{CU}```\n`model.py`:\n```python\n{PY}```\n".replace("\n", "\r\n"),
    "a byte-order mark": f"\ufeff```cuda\n{CU}```\n```python\n{PY}```",
}


@pytest.mark.parametrize("shape", BOTH)
def test_both_files_are_found(shape: str) -> None:
    assert cuda(BOTH[shape]) == {"kernel.cu": CU, "model.py": PY}


def test_a_first_comment_can_name_the_file_and_stays_in_it() -> None:
    files = cuda(f"```\n// kernel.cu\n{CU}```\n```\n# model.py: the module\n{PY}```")
    assert files == {"kernel.cu": "// kernel.cu\n" + CU, "model.py": "# model.py: the module\n" + PY}


def test_cpp_blocks_make_a_cpp_kernel() -> None:
    files = parse_kernel(f"`kernel.cpp`:\n```cpp\n{CU}```\n```python\n{PY}```", Language.CPP).files
    assert files == {"kernel.cpp": CU, "model.py": PY}


@pytest.mark.parametrize("language", [Language.TRITON, Language.MODULE])
@pytest.mark.parametrize(
    "reply",
    [f"```python\n{PY}```", f"```\n{PY}```", f"Sure.\n`model.py`\n```py\n{PY}```\nBye.", PY, f"```triton\n{PY}```"],
)
def test_one_file_is_found_in_any_shape(language: Language, reply: str) -> None:
    assert parse_kernel(reply, language).files == {"model.py": PY}


def test_a_module_with_cuda_in_a_string_is_one_python_file() -> None:
    text = kernel(Language.MODULE).files["model.py"]
    assert parse_kernel(f"```\n{text}```", Language.MODULE).files["model.py"] == text


def test_backticks_inside_code_survive() -> None:
    text = PY + '\nDOC = """use `x`, ``y`` and\n```\nz\n```\n"""\n'
    assert parse_kernel(f"````python\n{text}````", Language.MODULE).files == {"model.py": text}


def test_stray_backslashes_in_strings_are_no_warning_of_ours() -> None:
    text = PY + 'X = "\\d \\w"\n'
    assert parse_kernel(f"```python\n{text}```", Language.MODULE).files["model.py"] == text


def test_what_has_no_utf8_is_replaced() -> None:
    parse_kernel(f"```python\n{PY}# \ud800\n```", Language.MODULE).files["model.py"].encode("utf-8")


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        ("", "kernel.cu is missing: the reply has no fenced code block"),
        ("I cannot do that.", "no fenced code block"),
        (f"```cuda\n{CU}```", "model.py is missing: none of the 1 fenced blocks"),
        (f"```python\n{PY}```", "kernel.cu is missing: none of the 1 fenced blocks (```python)"),
        (f"```python\n{PY}```\n```cuda\n{CU}", "kernel.cu is not closed: the reply was cut off"),
        (f"```cuda\n{CU}```\n```python\n{PY}", "model.py is not closed: the reply was cut off"),
        (f"```cuda\n\n```\n```python\n{PY}```", "kernel.cu is empty"),
        (f"```cuda\n{CU}```\n```python\nx = 1\n```", "model.py defines no class ModelNew"),
        (f"```cuda\n{CU}```\n```python\nclass ModelNew\n```", "model.py:1: "),
        (f"```cuda\n{CU}```\n```python\n{PY}\x00\n```", "model.py"),
        (f"```cuda\n{CU}```\n```python\n{PY}x = {'-' * 100_000}1\n```", "model.py"),
        (f"```cuda\n{CU}{'x' * (1 << 20)}\n```\n```python\n{PY}```", "kernel.cu is larger than"),
    ],
)
def test_unusable_replies_say_what_is_wrong_and_how_to_answer(reply: str, complaint: str) -> None:
    with pytest.raises(ReplyError) as caught:
        parse_kernel(reply, Language.CUDA)
    assert complaint in caught.value.message
    assert len(caught.value.message) < 1000
    assert "kernel.cu in a ```cuda block and model.py in a ```python block" in caught.value.hint


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "flood", ["<think>" * 100_000, "```\n" * 100_001, "```a\n" * 100_000, "`" * 500_000, "    " * 200_000 + "`"]
)
def test_a_hostile_reply_is_read_in_time_linear_in_its_length(flood: str) -> None:
    with pytest.raises(ReplyError):
        parse_kernel(flood, Language.CUDA)
