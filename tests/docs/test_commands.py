"""Every command that README.md and docs/ name is one that there is."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import blocks, command_of, quoted, steps
from processes import REPOSITORY
from verbs import options, verbs, wrong_with

DOCUMENTS = [
    REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "SECURITY.md", *sorted((REPOSITORY / "docs").glob("*.md")),
]  # fmt: skip
OF_OTHERS = {
    "--headless", "--master-bind-host", "--master-host", "--web-password-file"
}  # fmt: skip
"""Options of `locust -f loadgen/locustfile.py` that a text may name by themselves."""


NOT_RUN = {
    r"make (demo|test)": "set up an environment; tests/e2e/test_demo.py has the demo",
    r"make up": "needs a container engine",
    r"loadstone .*(llm\.example\.com|//bf16:)": "needs it; a tutorial has one",
    r"loadstone run .*--(users|trace|find-max|sweep) ": "a minute and more, or a trace",
    r"loadstone run runs/latest/plan.toml": "tests/e2e/test_plans.py runs it",
    r"loadstone run (rag|\.\.\.)": "tutorial-scenario.md runs it shorter",
    r"loadstone (plan|index|report|selfcheck|fit)\b": "tutorials run it",
    r"loadstone (compare|cost|verify|validate)\b": "tests/cli and tests/verify run it",
    r"loadstone serve --": "tests/e2e/test_workers.py and tests/mock_server run it",
    r"loadstone simulate --": "takes minutes; tests/cli/test_simulate.py",
    r"locust ": "goes on until Ctrl-C; Locust's own parser takes it, below",
    r"(printf|ssh-keygen) ": "signs with a key of the reader's",
    r"python bench/": "a measurement of minutes",
}
"""Commands of README.md and the tutorials that are quoted and not run, and why."""
PROGRAMS = ("loadstone", "make", "locust", "printf", "ssh-keygen", "python", "docker")


def name_of(path: Path) -> str:
    """Name a document in a test's id."""
    return str(path.relative_to(REPOSITORY))


@pytest.fixture(params=DOCUMENTS, ids=name_of)
def text(request: pytest.FixtureRequest) -> str:
    """Return a document's text."""
    path: Path = request.param
    return path.read_text(encoding="utf-8")


def test_the_parser_takes_every_command(text: str) -> None:
    """In blocks and in lines: its verb, its options and their values."""
    wrong = {
        line: said
        for line in quoted(text)
        if (arguments := command_of(line, "loadstone")) is not None
        and (said := wrong_with(arguments))
    }
    assert not wrong


def test_every_option_named_is_one(text: str) -> None:
    """Of some verb, or known to be Locust's."""
    named = {
        word.split("=")[0]
        for line in quoted(text)
        if line.startswith("--")
        for word in re.findall(r"(?<!\S)--[a-z][\w-]*(?:=\S*)?", line)
    }
    assert named <= options() | OF_OTHERS


def test_every_target_and_script_named_is_there(text: str) -> None:
    """What `make` and `python` are given."""
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for line in quoted(text):
        given = command_of(line, "make") or []
        assert {word for word in given if word.islower()} <= targets | {"target"}, line
        for script in (command_of(line, "python") or [])[:1]:
            assert script.startswith("-") or (REPOSITORY / script).is_file(), line


def test_every_python_block_is_python(text: str) -> None:
    """At least to be parsed."""
    for block in blocks(text):
        if block.language == "python":
            ast.parse(block.text)


def test_locust_takes_what_it_is_given() -> None:
    """Its own parser, with the load generator's options in it."""
    lines = {
        line
        for path in DOCUMENTS
        for line in quoted(path.read_text(encoding="utf-8"))
        if line.startswith("locust -f ") and "..." not in line
    }
    assert len(lines) >= 4
    script = (
        "import sys\n"
        "from locust.argument_parser import parse_options\n"
        "import loadgen.locustfile\n"
        "for line in sys.stdin:\n"
        "    parse_options(line.split())\n"
    )
    given = [command_of(line, "locust") or [] for line in sorted(lines)]
    ended = subprocess.run(
        [sys.executable, "-c", script], input="\n".join(map(" ".join, given)) + "\n",
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["rnu"], "rnu"),
        (["run", "chat", "--rat", "3"], "--rat"),
        (["cost", "--rate", "3"], "--rate"),
        (["run", "chat", "--rate", "many"], "many"),
        (["run", "chat", "--duration", "soon"], "soon"),
        (["run", "chat", "--api", "grpc"], "grpc"),
        (["simulate", "--vms", "none"], "none"),
        (["plan", "shwo", "chat"], "shwo"),
        (["cost", "A", "B"], "B"),
    ],
)
def test_a_wrong_command_is_found(line: list[str], said: str) -> None:
    """So that the tests above can fail."""
    assert said in wrong_with(line)


def test_every_verb_is_known() -> None:
    """Verbs and those below them."""
    assert {"demo", "plan show", "dashboards check"} <= {name for name, _ in verbs()}


def test_what_is_not_run_is_known() -> None:
    """README.md and the tutorials: all else stands in a block that is run."""
    read = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("tutorial-*.md")]
    told: dict[str, int] = dict.fromkeys(NOT_RUN, 0)
    for path in read:
        text = path.read_text(encoding="utf-8")
        run = "\n".join(step.text for step in steps(text))
        for line in quoted(text):
            if line.split(" ")[0] not in PROGRAMS or " " not in line or line in run:
                continue
            if command_of(line, "loadstone") is not None and len(line.split()) == 2:
                continue  # a verb by its name
            reasons = [known for known in NOT_RUN if re.match(known, line)]
            assert reasons, f"{path.name}: {line}"
            told[reasons[0]] += 1
    assert [known for known, lines in told.items() if not lines] == []
