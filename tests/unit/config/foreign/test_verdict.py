"""What becomes of a value of another server. Each docstring says how it was seen to fail."""

import pytest

from aserver.config.foreign.verdict import (
    Flag,
    Meaning,
    Verdict,
    absolute_socket,
    asks_nothing,
    converted,
    count_is,
    into,
    renamed,
    same,
    switched,
    target_of,
    unequal,
    unneeded,
    with_unit,
)


@pytest.mark.parametrize("value", [None, False, 0, "", [], "off", "False", "no", "None", "0"], ids=repr)
def test_values_that_ask_for_nothing(value: object) -> None:
    """Fails with a warning for `spew = False`."""
    assert asks_nothing(value)
    assert unequal("no way").meaning("x", value, {}) == unneeded("no need").meaning("x", value, {}) == Meaning()


@pytest.mark.parametrize(
    ("verdict", "meaning"),
    [
        (same(), Meaning({"a_name": 3})),
        (same(text="a little"), Meaning({"a_name": 3}, ("a little",))),
        (renamed("other"), Meaning({"other": 3})),
        (unneeded("no need"), Meaning(notes=("no need",))),
        (unequal("no way"), Meaning(changes=("no way",))),
        (converted("other", into("other", with_unit("ms"), said="so"), "x"), Meaning({"other": "3ms"}, ("so",))),
    ],
    ids=["same", "same, a little", "renamed", "not needed", "no equal", "converted"],
)
def test_a_value_by_each_verdict(verdict: Verdict, meaning: Meaning) -> None:
    """Fails with a note in place of a change, or a name with a hyphen."""
    assert verdict.meaning("a-name", 3, {}) == meaning


def test_flags_of_a_row() -> None:
    """Fails where `=` names a value that follows."""
    assert same().spellings("a_name") == (Flag("--a-name"),)
    assert same("").spellings("a_name") == ()
    assert same("-w --workers").spellings("workers") == (Flag("-w"), Flag("--workers"))
    assert same("--on=on --off=off").spellings("x") == (Flag("--on", "on"), Flag("--off", "off"))


@pytest.mark.parametrize(
    ("value", "here"),
    [
        ("unix:app.sock", "unix:./app.sock"),
        ("unix:/app.sock", "unix:/app.sock"),
        ("unix:///app.sock", "unix:///app.sock"),
        ("unix:@name", "unix:@name"),
        ("unix:../app.sock", "unix:../app.sock"),
        ("h:1, unix:a", ["h:1", "unix:./a"]),
        (["unix:a", "h:1"], ["unix:./a", "h:1"]),
        (":80", ":80"),
    ],
)
def test_a_socket_in_the_working_directory(value: object, here: object) -> None:
    """Fails with an error for a relative path, which gunicorn takes."""
    assert absolute_socket(value) == here


def test_a_call_without_arguments_is_a_factory() -> None:
    """Fails with the brackets in the target's name."""
    assert target_of("m:make()", {}).settings == {"target": "m:make", "factory": True}
    assert target_of("m:make(1)", {}).settings == {"target": "m:make(1)"}
    assert target_of("", {}).settings == {}


@pytest.mark.parametrize(("value", "here"), [(5, 5), ("5", "5"), (0, 99), ("-1", 99), ("many", "many")], ids=repr)
def test_a_limit_that_is_none_there(value: object, here: object) -> None:
    """Fails with 0 handed on, which would be refused or mean another thing; the change is told."""
    meaning = count_is(1, "limit", 99)(value, {})
    assert meaning.settings == {"limit": here}
    assert bool(meaning.changes) == (here == 99)


def test_the_positions_of_a_switch() -> None:
    """Fails with the settings of one position for both."""
    convert = switched(on={"a": 1})
    assert convert("yes", {}).settings == {"a": 1}
    assert convert("off", {}) == Meaning()


def test_a_number_in_another_unit_and_text_that_has_one() -> None:
    """Fails with a unit behind a unit."""
    assert [with_unit("ms")(value) for value in (1500, "1500", "1.5s")] == ["1500ms", "1500ms", "1.5s"]
