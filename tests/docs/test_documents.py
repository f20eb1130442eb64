"""How documents are read: a reader that overlooks something proves nothing."""

import pytest
from documents import blocks, command_of, quoted, steps, unseen

PAGE = """# A page

```console
$ loadstone plan list
agent   tasks
chat    conversations
$ loadstone run chat \\
    --rate 2
Requests  3 sent
```

    loadstone cost DIR       # a comment with --no-option
    curl http://127.0.0.1:8000

Words and `loadstone serve
--vms 2` and `--port`.

```sh yours
export KEY=mine
```

```sh until=listening
loadstone serve
```

```sh exit=3
cat > a.toml <<'END'
x = 1
END
loadstone verify a.toml runs/latest
```

```toml
loadstone = "not a command"
```
"""


def test_what_is_run() -> None:
    """Each command of a console by itself, a block of sh as a whole; `yours` is not."""
    found = steps(PAGE)
    assert [step.text.split("\n")[0] for step in found] == [
        "loadstone plan list", "loadstone run chat \\", "loadstone serve",
        "cat > a.toml <<'END'",
    ]  # fmt: skip
    assert found[0].shown == "agent   tasks\nchat    conversations"
    assert found[1].shown == "Requests  3 sent"
    assert [step.until for step in found] == [None, None, "listening", None]
    assert [step.code for step in found] == [0, 0, 0, 3]
    assert PAGE.splitlines()[found[2].line - 1] == "```sh until=listening"


def test_what_is_quoted() -> None:
    """Wherever it stands: in blocks, indented, in a line, and over two lines."""
    lines = list(quoted(PAGE))
    assert "loadstone run chat --rate 2" in lines
    assert "loadstone cost DIR       # a comment with --no-option" in lines
    assert "loadstone serve --vms 2" in lines
    assert "loadstone verify a.toml runs/latest" in lines
    assert "--port" in lines
    assert not [line for line in lines if "not a command" in line]


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("loadstone cost DIR   # --no-option", ["cost", "DIR"]),
        ("loadstone report D --out - | jq --raw .x", ["report", "D", "--out", "-"]),
        ("loadstone plan show chat > my.toml", ["plan", "show", "chat"]),
        ("loadstone serve & loadstone run", ["serve"]),
        ("loadstone run ... --web", ["run", "--web"]),
        ("loadstone run --api-key-cmd 'a b'", ["run", "--api-key-cmd", "a b"]),
        ("locust -f x", None),
        ("loadstones", None),
    ],
)
def test_arguments(line: str, arguments: list[str] | None) -> None:
    """Up to where the shell takes over."""
    assert command_of(line, "loadstone") == arguments


OUTPUT = """
 Latency                 mean       p50
 ──────────────────────────────────────
 TTFT, from send      50.8 ms   43.0 ms
 TPOT                 17.9 ms   17.8 ms

Requests    619 sent, 619 ok
Steady      no steady window: it rises
│ verdict: ok                         │
run folder  runs/20261123-1
"""


@pytest.mark.parametrize(
    "shown",
    [
        "Requests    20 sent, 19 ok, 1 failed",
        "Latency   mean   p50\nTTFT, from send  1 ms  2 ms\nTPOT  3 ms",
        "Steady      95.0 to 804.2 s",
        "╭────╮\n│ verdict: client_limited │",
        "...\n12 34",
        "run folder  runs/2030",
    ],
)
def test_figures_may_be_others(shown: str) -> None:
    """And lines may be left out."""
    assert unseen(shown, OUTPUT) == []


@pytest.mark.parametrize(
    "shown",
    [
        "Latency   mean   p90",
        "TTFT, from due  1 ms",
        "TPOT  3 ms\nTTFT, from send  2 ms",
        "Answers    20 sent",
        "warning: something",
        "verdict: ok\nverdict: ok",
    ],
)
def test_labels_and_columns_may_not(shown: str) -> None:
    """Nor their order, nor how often they come."""
    assert unseen(shown, OUTPUT)


def test_a_block_knows_its_line() -> None:
    """So that a failure can be found."""
    assert [block.line for block in blocks(PAGE)] == [3, 18, 22, 26, 33]
