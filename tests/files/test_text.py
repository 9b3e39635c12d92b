"""Texts that people write."""

from __future__ import annotations

import codecs
import json

import pytest

from spml_dist.data.recipes import archives
from spml_dist.data.recipes.folder_layout import read_background
from spml_dist.errors import DataError
from spml_dist.files.text import read_json, read_lines


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_a_byte_order_mark_changes_nothing(tmp_path, mark):
    (tmp_path / "ids.txt").write_bytes(mark + "Köln\n\n b \n".encode())
    assert read_lines(tmp_path / "ids.txt", "") == ["Köln", "b"]
    assert archives.read_ids(tmp_path / "ids.txt", "") == ("Köln", "b")
    (tmp_path / "meta.json").write_bytes(mark + b'{"background": 0}')
    assert read_json(tmp_path / "meta.json", "") == {"background": 0}
    assert archives.read_json(tmp_path / "meta.json", "") == {"background": 0}
    assert read_background(tmp_path, ("road",)) == 0


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
@pytest.mark.parametrize("read", [read_lines, read_json])
def test_a_text_that_is_not_utf_8_is_to_be_saved_again(tmp_path, read, encoding):
    (tmp_path / "x").write_bytes('{"Köln": []}'.encode(encoding))
    with pytest.raises(DataError, match=r"x: cannot be read.*; save it as UTF-8$"):
        read(tmp_path / "x", "write it")


@pytest.mark.parametrize("text", ['{"a": [],\n}', '{"a": [1, 2,]}', '{"a": [[1, 2], ], "b": []}', "[1,]"])
def test_a_comma_too_many_is_asked_about(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"\(got .*\); is there a comma too many\? write it$"):
        read_json(tmp_path / "x.json", "write it")


@pytest.mark.parametrize(
    "text", ["", "{", '{"a": [1, 2] "b": []}', "[1, 2", "[1, x]", "{'a': [1, 2]}", '{"a"]']
)
def test_of_other_mistakes_a_comma_is_not_asked_about(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"x\.json: cannot be read as JSON \(got [^;]*\); write it$"):
        read_json(tmp_path / "x.json", "write it")


def test_a_name_that_is_there_twice_is_refused_at_any_depth(tmp_path):
    (tmp_path / "x.json").write_text('{"a": {"b": 1, "c": 2, "c": 2}}')
    with pytest.raises(DataError, match=r"x\.json: a name is there twice \(got c\)"):
        read_json(tmp_path / "x.json", "")
    content = {"a": {"b": 1}, "b": [{"b": 2}]}
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert read_json(tmp_path / "x.json", "") == content
