"""What `--help` says: short, true, and nearest to what was meant."""

import re

import click
import pytest
from documents import command_of
from verbs import verbs, wrong_with

from loadstone.cli.main import VERBS, group, main
from loadstone.cli.sections import SECTIONS, Sectioned

ALL = dict(verbs())


def page(name: str) -> str:
    """Return a verb's help, as it is printed."""
    return ALL[name].get_help(click.Context(ALL[name], info_name=f"loadstone {name}"))


def examples(text: str) -> list[list[str]]:
    """Return the arguments of each command in a help's examples."""
    joined = re.sub(r"\\?\n {4,}", " ", text)
    lines = [line.strip() for line in joined.splitlines() if line.startswith("  ")]
    found = [command_of(line, "loadstone") for line in lines]
    return [arguments for arguments in found if arguments is not None]


@pytest.mark.parametrize("name", ALL)
def test_its_first_line_says_what_it_does(name: str) -> None:
    """One sentence, which a list of verbs has room for."""
    summary = (ALL[name].help or "").split("\n\n")[0]
    assert summary.endswith(".")
    assert len(summary) < 120
    assert summary.count(". ") == 0


@pytest.mark.parametrize("name", [n for n in ALL if " " not in n])
def test_its_examples_are_taken_by_the_parser(name: str) -> None:
    """Each verb has some, and there is one for each verb below it."""
    found = examples(ALL[name].epilog or "")
    assert [words for words in found if words[0] == name]
    assert {
        " ".join(words): wrong for words in found if (wrong := wrong_with(words))
    } == {}
    command = ALL[name]
    if isinstance(command, click.Group):
        assert set(command.commands) <= {
            words[1] for words in found if words[0] == name
        }


def test_the_examples_of_loadstone_itself() -> None:
    """Of `loadstone --help`."""
    found = examples(group.epilog or "")
    assert len(found) >= 4
    assert {
        " ".join(words): wrong for words in found if (wrong := wrong_with(words))
    } == {}


@pytest.mark.parametrize(
    "name", [name for name, command in ALL.items() if isinstance(command, Sectioned)]
)
def test_each_option_is_in_a_section(name: str) -> None:
    """Once; and what is of none is little."""
    text = page(name)
    headings = re.findall(r"^([A-Z][\w ]+):$", text, re.MULTILINE)
    assert len(headings) == len(set(headings)) >= 2
    options = [p for p in ALL[name].params if isinstance(p, click.Option)]
    shown = re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.MULTILINE)
    assert sorted(shown) == sorted([p.opts[-1] for p in options] + ["--help"])
    rest = text.partition("Everything else:")[2].partition("\n\n")[0]
    assert len(re.findall(r"^  -", rest, re.MULTILINE)) <= 10


def test_no_section_has_an_option_that_there_is_not() -> None:
    """A name that was changed elsewhere is seen here."""
    known = {p.name for command in ALL.values() for p in command.params}
    named = [name for names in SECTIONS.values() for name in names]
    assert set(named) <= known
    assert all(len(names) == len(set(names)) for names in SECTIONS.values())


def test_an_option_stands_where_it_belongs_in_that_verb() -> None:
    """The same name is of the endpoint in one verb, and of the machine in another."""

    def heading(verb: str, option: str) -> str:
        above = page(verb).partition(f"  {option} ")[0]
        return re.findall(r"^([A-Z][\w ]+):$", above, re.MULTILINE)[-1]

    assert heading("run", "--model") == "The endpoint"
    assert heading("serve", "--model") == "The machine"
    assert heading("run", "--vms") == "Limits and objectives"
    assert heading("simulate", "--vms") == "The machine"
    assert heading("run", "--api-key-file") == "Keys and the way there"
    assert heading("serve", "--api-key-file") == "The server"


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["simulte"], "simulate"),
        (["dashboard"], "dashboards"),
        (["plan", "lst"], "list"),
        (["run", "chat", "--durtion", "3s"], "--duration"),
        (["serve", "--presets", "x"], "--preset"),
        (["plan", "show", "chta"], "chat"),
        (["serve", "--preset", "azure-nd-gb300"], "azure-nd-gb300-v6"),
        (["completion", "bsh"], "bash"),
    ],
)
def test_a_slip_is_told_what_was_meant(
    words: list[str], near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a verb, an option, or a name."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert near in capsys.readouterr().err


def test_the_list_of_verbs_is_the_help() -> None:
    """In their order, each with its words."""
    text = group.get_help(click.Context(group))
    for name, words in VERBS.items():
        assert re.search(rf"^  {name} +{re.escape(words[:20])}", text, re.MULTILINE)
