"""Tables of the verbs: columns as wide as what they hold."""

from __future__ import annotations

from spml_dist.tables import facts, table


def test_names_stand_to_the_left_and_numbers_to_the_right():
    assert table(
        ("class", "pixels", "IoU"), [("sky", 1234567, "50.1"), ("grass", 8, "9.0")]
    ).splitlines() == [
        "class   pixels   IoU",
        "sky    1234567  50.1",
        "grass        8   9.0",
    ]


def test_a_table_without_rows_has_its_titles():
    assert table(("class", "pixels"), []) == "class  pixels"


def test_facts_begin_in_one_column():
    assert facts({"rows": 12, "images": "3 of 4"}) == "rows    12\nimages  3 of 4"
