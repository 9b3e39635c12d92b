"""What queries found, in every form that it is shown in; and the verbs that ask."""

from __future__ import annotations

import json
import shutil

import cv2
import pyarrow.parquet as pq
import pytest

from spml_dist import cli, open_index
from spml_dist.retrieval import results
from spml_dist.retrieval.build import build_index
from tests.inference.conftest import stripes
from tests.retrieval.conftest import packed, scenes


def test_a_table_a_line_and_a_parquet_row_for_every_neighbour(built, tmp_path, capsys):
    words = ["query", str(built), "--segment", "train/stripes-0/0", "-k", "3", "--other-pictures"]
    assert cli.main(words) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 4 and table[1].split()[0] == "train/stripes-0/0"
    assert cli.main([*words, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["rank"] for line in lines] == [1, 2, 3]
    assert cli.main([*words, "--parquet", str(tmp_path / "a.parquet")]) == 0
    read = pq.read_table(tmp_path / "a.parquet").to_pylist()
    for row, line in zip(read, lines, strict=True):
        assert row == line | {
            name: pytest.approx(line[name]) for name in ("similarity", "area", "confidence")
        }


def test_many_queries_come_from_a_file(built, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), stripes(0).image[..., ::-1])
    questions = [{"class": "red"}, {"segment": "3"}, {"image": str(tmp_path / "a.png"), "at": [5, 5]}]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, questions)))
    assert cli.main(["query", str(built), "--queries", str(tmp_path / "q.jsonl"), "-k", "1", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    (tmp_path / "q.jsonl").write_text('{"class": "red"}\n\n{"segment": "none"}\n')
    assert cli.main(["query", str(built), "--queries", str(tmp_path / "q.jsonl")]) == 2
    assert "q.jsonl:3: --segment: no segment" in capsys.readouterr().err
    for wrong in ("{", "[1]", '{"class": 3}', '{"image": "a.png", "at": [1]}', '{"dog": 1}', ""):
        (tmp_path / "q.jsonl").write_text(wrong)
        assert cli.main(["query", str(built), "--queries", str(tmp_path / "q.jsonl")]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_page_shows_the_query_and_its_neighbours_on_their_pictures(built, tmp_path):
    page = tmp_path / "a.html"
    assert cli.main(["query", str(built), "--segment", "0", "-k", "4", "--html", str(page)]) == 0
    text = page.read_text()
    assert text.count("<img ") == text.count('class="outline"') == 5
    assert "http://" not in text and "https://" not in text


def test_a_picture_that_has_moved_is_left_away_with_the_reason(trained, tmp_path):
    folder = packed(tmp_path / "a", "a", scenes(0, 2))
    build_index(trained, [str(folder)], tmp_path / "index")
    collection = open_index(tmp_path / "index")
    shutil.rmtree(folder)
    answers = collection.query(segment=0, k=2)
    results.write_page(collection, answers, tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    assert text.count("no picture: ") == 3 and "no such file" in text


def test_a_pack_that_was_packed_anew_shows_no_other_picture(trained, tmp_path):
    folder = packed(tmp_path / "a", "a", scenes(0, 2))
    build_index(trained, [str(folder)], tmp_path / "index")
    shutil.rmtree(folder)
    packed(folder, "a", scenes(1, 2))
    collection = open_index(tmp_path / "index")
    card = results.card(collection, collection.index.segment(0))
    assert card["picture"] is None and "packed anew since it was indexed" in card["missing"]


def test_names_with_markup_are_shown_as_they_are(built, tmp_path, monkeypatch):
    collection = open_index(built)
    collection.index.classes = ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "b")
    results.write_page(collection, collection.query(segment=0, k=5), tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    assert "<script" not in text and "<img src=x" not in text and "&lt;script&gt;" in text


def test_the_verb_that_indexes_says_what_it_did(trained, tmp_path, capsys):
    assert cli.main(["index", str(trained), "--out", str(tmp_path / "index")]) == 0
    outcome = capsys.readouterr().out
    assert "segments to" in outcome and "pictures added 5, replaced 0, removed 0" in outcome


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["query", "DIR", "--class", "rde"], "did you mean red"),
        (["query", "DIR", "--segment", "0", "-k", "1000000"], "give 1 to 10,000"),
        (["query", "nowhere", "--class", "red"], "no index"),
        (["index", "nowhere", "--out", "OUT"], "no run folder"),
        (["suggest", "DIR", "-n", "1", "--pack", "b"], "choose from train"),
        (["suggest", "DIR", "-n", "1", "--out", "DIR"], "Is a directory"),
        (["audit", "DIR", "--html", "DIR"], "Is a directory"),
        (["query", "DIR", "--class", "red", "--parquet", "DIR"], "Is a directory"),
        (["query", "DIR/image.index", "--class", "red"], "no index"),
    ],
)
def test_a_mistake_is_one_line(built, tmp_path, capsys, words, reason):
    places = {"DIR": str(built), "OUT": str(tmp_path / "out")}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    assert cli.main(words) == 2
    outcome = capsys.readouterr().err
    assert reason in outcome and outcome.count("\n") == 1
