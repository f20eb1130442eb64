"""Documents as a reader takes them: commands to type, and what is shown of the answer.

A fenced block of `sh` or `console` is to be run; in a `console` block a line that
begins with `$ ` is typed and the others are what it says. Words after the language say
what a reader is told by the text around it:

* `until=WORD`: it goes on (a server, in a terminal of its own) and has said WORD;
* `exit=N`: it ends with this code, and not with 0;
* `yours`: the reader has other values to put in.

Any other command is only quoted: in an indented block, or inside a line.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(
    r"^```(?P<info>[^`\n]*)\n(?P<text>.*?)^```[ ]*$", re.MULTILINE | re.DOTALL
)
_INDENTED = re.compile(r"(?:^(?: {4}).*\n)+", re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`(?!`)([^`]+)`")
SHELLS = ("sh", "console")


@dataclass(frozen=True)
class Block:
    """A fenced block: the words after the fence, its text, and its first line."""

    info: str
    text: str
    line: int

    @property
    def language(self) -> str:
        """`sh`, `console`, `toml`, ... or nothing."""
        return (self.info.split() or [""])[0]

    def told(self, name: str) -> str | None:
        """Return what the fence says after `name=`: "" where it has the word alone."""
        for word in self.info.split()[1:]:
            key, _, value = word.partition("=")
            if key == name:
                return value
        return None


@dataclass(frozen=True)
class Step:
    """What is typed at once, and what the document shows of its output."""

    text: str
    line: int
    shown: str = ""
    until: str | None = None
    code: int = 0


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a document."""
    return [
        Block(found["info"], found["text"], text.count("\n", 0, found.start()) + 1)
        for found in _FENCE.finditer(text)
    ]


def steps(text: str) -> list[Step]:
    """Return what a reader runs, in order; without the blocks that are the reader's."""
    found: list[Step] = []
    for block in blocks(text):
        if block.language not in SHELLS or block.told("yours") is not None:
            continue
        until, code = block.told("until"), int(block.told("exit") or 0)
        if block.language == "sh":
            found.append(Step(block.text, block.line, until=until, code=code))
            continue
        for typed, shown in _typed(block.text):
            found.append(Step(typed, block.line, shown, until, code))
    return found


def _typed(text: str) -> Iterator[tuple[str, str]]:
    """Divide a console's text into what was typed and what was said."""
    typed: list[str] = []
    shown: list[str] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            if typed:
                yield "\n".join(typed), "\n".join(shown)
            typed, shown = [line[2:]], []
        elif typed and not shown and typed[-1].endswith("\\"):
            typed.append(line)
        else:
            assert typed, f"a console begins with what is typed, not with {line!r}"
            shown.append(line)
    yield "\n".join(typed), "\n".join(shown)


def quoted(text: str) -> Iterator[str]:
    """Give every line that a document has as code, to be run or not, unprompted."""
    for block in blocks(text):
        if block.language in (*SHELLS, ""):
            yield from _lines(block.text)
    outside = _FENCE.sub("", text)
    for block in _INDENTED.findall(outside):
        yield from _lines(block)
    for inline in _INLINE.findall(_INDENTED.sub("", outside)):
        yield " ".join(inline.split())


def _lines(text: str) -> Iterator[str]:
    """Give its lines, those that go on joined."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    for line in joined.splitlines():
        yield line.strip().removeprefix("$ ")


def command_of(line: str, program: str) -> list[str] | None:
    """Return the arguments that a line gives to a program; None if it starts another.

    What follows a pipe, a redirection or `;` is not the program's.
    """
    if not line.startswith(f"{program} "):
        return None
    reader = shlex.shlex(line, posix=True, punctuation_chars="|;&>")
    reader.whitespace_split = True
    reader.commenters = "#"
    arguments: list[str] = []
    for word in list(reader)[1:]:
        if set(word) <= set("|;&>"):
            break
        if word not in ("...", "…"):
            arguments.append(word)
    return arguments


def unseen(shown: str, output: str) -> list[str]:
    """Return the lines that a document shows and whose like the output does not have.

    Lines are alike by their labels: what stands before the first figure or colon, and
    of a table's heading every column. They are looked for in order; the document may
    leave lines out, and figures may be others.
    """
    said = iter([label for line in output.splitlines() if (label := _label(line))])
    return [
        line
        for line in shown.splitlines()
        if (label := _label(line)) and label not in said
    ]


_RULES = re.compile(r"[\u2500-\u257f\u2580-\u259f]+")
_VALUE = re.compile(r"(?<![\w/.-])[-+~$<]?\d|:")


def _label(line: str) -> tuple[str, ...]:
    """Return what stays the same of a line, whatever was measured."""
    cells = [cell.strip() for cell in re.split(r"\s{2,}", _RULES.sub("", line).strip())]
    if len(cells) > 2 and not any(_VALUE.search(cell) for cell in cells):
        return tuple(cells)
    label = _VALUE.split(cells[0], maxsplit=1)[0].strip()
    return (label,) if re.search(r"[^\W\d]{2}", label) else ()
