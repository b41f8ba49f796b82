"""The Modelfile parser: every command, every way to quote, every mistake."""

import codecs
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyggml_server.api.options import KNOWN_OPTIONS
from pyggml_server.errors import BadRequestError
from pyggml_server.modelfile import PARAMETERS, RETIRED, Command, parse_modelfile, parse_parameter, read_modelfile

WHOLE = '''# a comment
from smollm2:135m
FROM ./projector.gguf
PARAMETER temperature 0.5
parameter stop "<|a|>"
PARAMETER stop  b c
PARAMETER num_ctx 1024
PARAMETER num_ctx 2048
PARAMETER use_mmap TRUE
PARAMETER logit_bias {"5": -1.5}
TEMPLATE """{{ .System }}
# no comment here
{{ .Prompt }}"""
SYSTEM "say "hi" \\n"
ADAPTER ./lora.gguf
LICENSE one
LICENSE """
two
"""
MESSAGE user Hello: is it: me?
MESSAGE Assistant """yes
no"""
RENDERER r
PARSER p
REQUIRES 0.12.0
DRAFT ./small.gguf
'''


def test_every_command():
    modelfile = parse_modelfile(WHOLE.encode())
    assert modelfile.values("FROM") == ["smollm2:135m", "./projector.gguf"]
    assert modelfile.values("ADAPTER") == ["./lora.gguf"]
    assert modelfile.values("DRAFT") == ["./small.gguf"]
    assert modelfile.request() == {
        "template": "{{ .System }}\n# no comment here\n{{ .Prompt }}",
        "system": 'say "hi" \\n',
        "renderer": "r",
        "parser": "p",
        "requires": "0.12.0",
        "license": ["one", "\ntwo\n"],
        "messages": [{"role": "user", "content": "Hello: is it: me?"}, {"role": "assistant", "content": "yes\nno"}],
        "parameters": {
            "temperature": 0.5,
            "stop": ["<|a|>", "b c"],
            "num_ctx": 2048,
            "use_mmap": True,
            "logit_bias": {"5": -1.5},
        },
    }
    assert [command.line for command in modelfile.commands][:4] == [2, 3, 4, 5]


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
        lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
        lambda text: text.replace("\n", "\r\n").encode(),
    ],
)
def test_encodings(encode):
    assert parse_modelfile(encode(WHOLE + "SYSTEM ünï\n")).values("SYSTEM")[-1] == "ünï"


def test_an_empty_text_is_a_value():
    assert parse_modelfile(b'FROM x\nSYSTEM ""').request() == {"system": ""}
    assert parse_modelfile(b'FROM x\nSYSTEM """"""').request() == {"system": ""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM x\nFORM y", "line 2: unknown command 'FORM'; there are FROM, PARAMETER"),
        ("FROM", "line 1: FROM has no value"),
        ("FROM x\n\nPARAMETER top_k", "line 3: PARAMETER has no value"),
        ("FROM x\nPARAMETER", "line 2: PARAMETER has no value"),
        ('FROM x\nSYSTEM """abc\ndef', 'line 2: the text has no closing """'),
        ('FROM x\nSYSTEM "abc\ndef"', "line 2: the text has no closing quote"),
        ("FROM x\nMESSAGE tool hi", "line 2: the role of a message is one of system, user, assistant, not 'tool'"),
        ("FROM x\nMESSAGE user", "line 2: MESSAGE has no value"),
        ("SYSTEM x", "no FROM line"),
        ("", "no FROM line"),
        ("FROM! x", "line 1: unknown command"),
    ],
)
def test_mistakes_tell_their_line(text, message):
    with pytest.raises(BadRequestError) as caught:
        parse_modelfile(text.encode())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("top_k x", "line 2: invalid int value 'x' for top_k"),
        ("top_k 1.5", "invalid int value '1.5'"),
        ("temperature warm", "invalid float value 'warm'"),
        ("temperature nan", "invalid float value 'nan'"),
        ("use_mmap maybe", "invalid bool value 'maybe'"),
        ("logit_bias [1]", "invalid json value"),
        ("colour red", "unknown parameter 'colour'"),
    ],
)
def test_parameters_have_kinds(line, message):
    modelfile = parse_modelfile(f"FROM x\nPARAMETER {line}".encode())
    with pytest.raises(BadRequestError) as caught:
        modelfile.request()
    assert message in str(caught.value)


def test_retired_parameters_are_dropped_with_a_warning():
    modelfile = parse_modelfile(b"FROM x\nPARAMETER low_vram true\nPARAMETER top_k 3")
    assert modelfile.request() == {"parameters": {"top_k": 3}}
    assert modelfile.warnings == ("line 2: parameter 'low_vram' means nothing any more",)


def test_the_server_knows_all_parameters():
    assert set(PARAMETERS) == set(KNOWN_OPTIONS)
    assert not RETIRED & set(PARAMETERS)


def test_broken_bytes():
    with pytest.raises(BadRequestError, match="no utf-8 text"):
        parse_modelfile(b"FROM \xff\xfe\xfd")


TEXT = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters='"\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029')
)


@given(TEXT, st.lists(TEXT, min_size=1, max_size=4))
def test_what_is_written_is_read(system, lines):
    content = "\n".join(lines)
    text = f'FROM x\nSYSTEM "{system}"\nMESSAGE user """{content}"""\n'
    modelfile = parse_modelfile(text.encode())
    assert modelfile.commands[1] == Command("SYSTEM", system, "", 2)
    assert modelfile.commands[2].value == content


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=200), st.text(alphabet="FROMPAETSY \"'#\n\\xü{}:", max_size=120).map(str.encode)))
def test_any_bytes_are_read_or_refused(data):
    try:
        modelfile = parse_modelfile(data)
        modelfile.request()
    except BadRequestError:
        return
    assert modelfile.values("FROM")


@given(st.sampled_from(sorted(PARAMETERS)), st.text(max_size=30))
def test_any_parameter_is_read_or_refused(name, text):
    try:
        parse_parameter(name, text)
    except BadRequestError as error:
        assert name in str(error)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bytes(range(256)) * 4000, "no utf-8 text"),
        (b"FROM x\nSYSTEM " + b"a" * (64 << 20), "of more than 67108864 bytes is not read"),
        (b'FROM x\nSYSTEM """' + b"a\n" * 500_000, "line 2: the text has no closing"),
        (b"FR\0OM x", "line 1: unknown command"),
        (b"FROM x\nPARAMETER logit_bias " + b'{"a":' * 200_000, "line 2: invalid json value"),
        (b"FROM x\nPARAMETER logit_bias " + b"[" * 200_000, "line 2: invalid json value"),
        (b'FROM x\nPARAMETER logit_bias {"1": NaN}', "line 2: invalid json value"),
        (b"FROM x\nPARAMETER num_ctx " + b"9" * 100_000, "line 2: invalid int value"),
        (b"FROM x\nPARAMETER num_ctx 9223372036854775808", "line 2: invalid int value"),
        (b"FROM x\nPARAMETER temperature 1e999", "line 2: invalid float value"),
        (b"\xff\xfeF\0R\0O\0M\0 \0x", "no utf-16-le text"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_what_is_meant_to_hurt(data, message):
    with pytest.raises(BadRequestError) as caught:
        parse_modelfile(data).request()
    assert message in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.timeout(60)
def test_a_hundred_thousand_values_take_no_hour():
    modelfile = parse_modelfile(b"FROM x\n" + b"PARAMETER stop a\n" * 100_000)
    assert len(modelfile.request()["parameters"]["stop"]) == 100_000


def test_a_modelfile_without_end(tmp_path):
    with pytest.raises(BadRequestError, match="is not read"):
        read_modelfile(Path("/dev/zero"))
    (tmp_path / "Modelfile").write_text("FROM x")
    assert read_modelfile(tmp_path / "Modelfile").values("FROM") == ["x"]
