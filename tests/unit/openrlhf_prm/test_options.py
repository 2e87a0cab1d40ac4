"""Options: one field gives the flag, its help, its bounds, and whether somebody reads it."""

import argparse
from dataclasses import dataclass

import pytest

from openrlhf_prm.cli.parser import nested
from openrlhf_prm.options import REQUIRED, Options, add_flags, build, given, option, refuse_unread


@dataclass(frozen=True, kw_only=True)
class First(Options):
    coef: float = option(1.0, "weight in %", least=0)
    mode: str = option("a", "how it is done", choices=("a", "b"))
    limit: int | None = option(None, "tokens at most", above=0, kind=int)
    share: float = option(0.5, "share that is kept", above=0, most=1)
    careful: bool = option(True, "whether care is taken")


@dataclass(frozen=True, kw_only=True)
class Second(Options):
    coef: float = option(2.0, "weight in %", least=0)
    target: int = option(3, "what is aimed at", least=1)

    def __post_init__(self):
        super().__post_init__()
        if self.target == 13:
            raise ValueError("target 13 brings bad luck")


def parsed(*flags: str, owners=None):
    parser = argparse.ArgumentParser()
    add_flags(parser, "group", owners or First)
    return nested(parser.parse_args(flags)).group, parser


def test_flags_that_are_not_given_keep_the_default():
    namespace, _ = parsed()
    assert set(vars(namespace).values()) == {None}
    assert build(First, namespace, "group") == First()


def test_flags_that_are_given_have_the_type_of_the_default():
    namespace, _ = parsed("--group.coef", "3", "--group.limit", "4", "--group.no_careful", "--group.mode", "b")
    assert build(First, namespace, "group") == First(coef=3.0, limit=4, careful=False, mode="b")
    assert given(First, namespace) == {"coef": 3.0, "limit": 4, "careful": False, "mode": "b"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--group.coef", "-1"], "--group.coef must be at least 0, got -1.0"),
        (["--group.coef", "nan"], "--group.coef must be a finite number, got nan"),
        (["--group.limit", "0"], "--group.limit must be above 0, got 0"),
        (["--group.share", "0"], "--group.share must lie in 0..1, 0 excluded, got 0.0"),
        (["--group.share", "1.5"], "--group.share must lie in 0..1, 0 excluded, got 1.5"),
    ],
)
def test_a_value_out_of_bounds_names_flag_and_bounds(flags, message):
    with pytest.raises(ValueError) as error:
        build(First, parsed(*flags)[0], "group")
    assert str(error.value) == message


def test_values_on_closed_bounds_are_allowed():
    assert First(coef=0, share=1).share == 1


def test_a_choice_that_is_not_there_is_refused_in_python_too():
    with pytest.raises(ValueError, match="^mode must be one of a, b, got 'c'$"):
        First(mode="c")


def test_checks_of_the_class_itself_name_the_flag_as_well():
    with pytest.raises(ValueError, match="^--group.target 13 brings bad luck$"):
        build(Second, parsed("--group.target", "13", owners=Second)[0], "group")


def test_an_option_of_several_classes_is_one_flag_with_each_default():
    namespace, parser = parsed("--group.coef", "7", owners={"one": First, "two": Second})
    assert build(Second, namespace, "group").coef == 7.0
    text = " ".join(parser.format_help().split())
    assert "one, two: weight in % (default one 1.0, two 2.0)" in text
    assert "two: what is aimed at (default 3)" in text
    assert "one: tokens at most --group" in text  # no default to show


def test_a_flag_that_nothing_reads_is_an_error():
    namespace, _ = parsed("--group.target", "5", owners={"one": First, "two": Second})
    refuse_unread(namespace, "group", ["coef", "target"], "is not read by two")
    with pytest.raises(ValueError, match="^--group.target is not read by one$"):
        refuse_unread(namespace, "group", [field for field in First.__dataclass_fields__], "is not read by one")


def test_a_false_that_is_given_counts_as_given():
    namespace, _ = parsed("--group.no_careful")
    with pytest.raises(ValueError, match="--group.careful"):
        refuse_unread(namespace, "group", [], "is read by nobody")


@dataclass(frozen=True, kw_only=True)
class Third(Options):
    name: str = option("a", "which one", registry={"a": 1, "b": 2})
    window: int = option(0, "how far back")
    decay: float = option(0.5, "how fast", read_with="window")


def test_a_registrys_flag_takes_a_key_or_a_file_and_makes_its_path_absolute(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text("C = 3\n")
    monkeypatch.chdir(tmp_path)
    assert parsed("--group.name", "b", owners=Third)[0].name == "b"
    namespace, parser = parsed("--group.name", "mine.py:C", owners=Third)
    assert namespace.name == f"{tmp_path / 'mine.py'}:C"
    assert build(Third, namespace, "group").name == namespace.name
    assert "{a,b,FILE.py:Name}" in parser.format_help()
    for wrong, message in (("c", "choose one of a, b, or give FILE.py:Name"), ("mine.py:D", "mine.py defines no D")):
        with pytest.raises(SystemExit):
            parser.parse_args(["--group.name", wrong])
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="name must be one of a, b, or FILE.py:Name, got 'c'"):
        Third(name="c")


def test_an_option_that_goes_with_another_is_unread_without_it():
    assert Third().unread("group") == {"decay": "--group.window"}
    assert Third(window=3).unread("group") == {}


@dataclass(frozen=True, kw_only=True)
class Fourth(Options):
    source: str = option(REQUIRED, "where it is read", kind=str, aliases=("--source",))
    pair: tuple[str, str] = option(("+", "-"), "the two signs", aliases=("--pair",))
    careful: bool = option(False, "whether care is taken", aliases=("--careful",))


def test_required_options_pairs_and_older_flags(capsys):
    namespace, parser = parsed("--source", "x", "--pair", "a", "b", "--careful", owners=Fourth)
    assert build(Fourth, namespace, "group") == Fourth(source="x", pair=("a", "b"), careful=True)
    namespace, _ = parsed("--group.source", "y", owners=Fourth)
    assert build(Fourth, namespace, "group").pair == ("+", "-")
    text = " ".join(parser.format_help().split())
    assert "--group.source str, --source str where it is read --group.pair" in text
    assert "the two signs (default '+' '-')" in text
    with pytest.raises(SystemExit):
        parser.parse_args([])
    assert "the following arguments are required: --group.source/--source" in capsys.readouterr().err
    with pytest.raises(TypeError, match="source"):
        Fourth()
