import pytest

from jdec.cli.parsing import integers, names, numbers


@pytest.mark.parametrize(
    ("text", "values"),
    [("5", (5,)), ("5-7", (5, 6, 7)), (" 1, 3 - 4 ", (1, 3, 4))],
)
def test_integers(text, values):
    assert integers("seeds", text) == values


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "1,,2", "0-99999"])
def test_what_is_no_integers(text):
    with pytest.raises(ValueError, match="seeds: expected"):
        integers("seeds", text)


def test_numbers():
    assert numbers("alphas", None) == ()
    assert numbers("alphas", "0.5,1e-2") == (0.5, 0.01)
    with pytest.raises(ValueError, match="alphas: expected numbers"):
        numbers("alphas", "1;2")


def test_names():
    assert names("drop", None) == ()
    assert names("drop", "a") == ("a",)
    assert names("drop", "a, b") == ("a", "b")
    assert names("drop", '"a,b",c') == ("a,b", "c")
    assert names("drop", "") == ("",)  # a column without a name
    with pytest.raises(ValueError, match="drop: expected names"):
        names("drop", '"a')
