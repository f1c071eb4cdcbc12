"""Mutated inputs from fixed seeds, and the rule for each: success, or an error of ours.

A kind of input (`Kind`) is a handful of good files and what the program does with one. The kinds
stand in `fuzz_kinds`; `scripts/fuzz_inputs.py` runs many mutants of all of them.

    for mutant in mutants(kind, count=300, seed=0):
        path.write_bytes(mutant)
        refusal(lambda: kind.read(path))
"""

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mla_tune.errors import InputError

# A string that `_with_deep_nesting` turns into brackets within brackets: no dumper writes those.
DEEP = "@@deep@@"

NUMBERS: tuple[Any, ...] = (
    *(0, -1, 1, 2**31, 2**63, -(2**63), 10**20, 10**400, True),
    *(0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), float("-inf")),
)
STRINGS = (
    *(
        "",
        " ",
        "\n",
        "\t",
        "0",
        "-1",
        "1k",
        "nan",
        "null",
        "~",
        "default",
        "auto",
        "..",
        "/dev/full",
    ),
    *("\x00", "\x1b[2J", "\x9b31m", "\u2028", "\u202e", "\ufeff", "\ud7ff", "😀", "٣", "é" * 3),
    *("[/x]", "[bold]", "{x}", "{0}", "%s", "a: b", "&a", "*a", "<<", "!!python/object:os.system"),
    *("q1", "8q1s1k", "q1s{1k,4k}", "999999999q999999999k", "x" * 5000, "9" * 5000, DEEP),
)
BYTES = (
    *(b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\x1b[0m", b"\r", b"\n", b"\n\n", b"\t"),
    *(b"\x80", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\xc2\x85", b"---\n", b"...\n", b"{}", b"[]"),
    *(b"&a ", b"*a", b"!!binary ", b"? ", b": ", b"- ", b"#", b'"', b"'", b"|", b"<<: *a"),
    *(b"9" * 5000, b"[" * 3000, b"{" * 3000, b"{a: " * 3000, b"- " * 3000, b"1e999", b"-0", b"010"),
)


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        name: such as "tables".
        seeds: good inputs.
        read: all that the program does with a file of this kind; success or an `InputError`.
        suffix: of the file's name.
        parse, dump: between the bytes and plain data, for mutations of the data; None where only
            bytes are mutated.
    """

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], object]
    suffix: str
    parse: Callable[[bytes], Any] | None = None
    dump: Callable[[Any], bytes] | None = None


def mutants(kind: Kind, count: int, seed: int = 0) -> Iterator[bytes]:
    """``count`` mutated inputs, always the same ones for the same ``seed``."""
    rng = random.Random(f"{kind.name} {seed}")
    for _ in range(count):
        data = rng.choice(kind.seeds)
        if kind.parse is not None and kind.dump is not None and rng.random() < 0.5:
            data = _with_deep_nesting(kind.dump(mutated_data(rng, kind.parse(data))), rng)
        else:
            for _ in range(rng.choice((1, 1, 1, 2, 4))):
                data = mutated_bytes(rng, data, kind.seeds)
        yield data


def refusal(read: Callable[[], object]) -> InputError | None:
    """Run ``read``; return our error, or None on success. Whatever else it raises passes on.

    A command's end with code 0 (or 1, as for a miss) is success, with code 2 a refusal.
    """
    try:
        read()
    except InputError as error:
        return error
    except SystemExit as end:
        if end.code == 2:
            return InputError("ended with exit code 2")
        if end.code not in (None, 0, 1):
            raise AssertionError(f"ended with exit code {end.code}") from None
    return None


# Mutations of bytes.


def mutated_bytes(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """One mutation of ``data``: of bits, bytes, words or lines."""
    mutate = rng.choice(_BYTE_MUTATIONS)
    return mutate(rng, data, rng.choice(seeds))


def _flip_bit(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    if not data:
        return data
    position = rng.randrange(len(data))
    return data[:position] + bytes([data[position] ^ 1 << rng.randrange(8)]) + data[position + 1 :]


def _set_byte(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    position = rng.randrange(len(data) + 1)
    return data[:position] + bytes([rng.randrange(256)]) + data[position + 1 :]


def _insert(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    position = rng.randrange(len(data) + 1)
    return data[:position] + rng.choice(BYTES) + data[position:]


def _delete_range(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    first = rng.randrange(len(data) + 1)
    return data[:first] + data[first + rng.choice((1, 2, 8, 64)) :]


def _repeat_range(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    first = rng.randrange(len(data) + 1)
    last = first + rng.choice((1, 8, 64))
    return data[:last] + data[first:last] * rng.choice((1, 2, 30)) + data[last:]


def _truncate(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _lines(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Delete, repeat, swap or borrow a line, join two, or blank one with NULs."""
    lines, others = data.splitlines(keepends=True), other.splitlines(keepends=True)
    if not lines or not others:
        return data
    here, there = rng.randrange(len(lines)), rng.randrange(len(lines))
    what = rng.randrange(6)
    if what == 0:
        del lines[here]
    elif what == 1:
        lines.insert(there, lines[here])
    elif what == 2:
        lines[here], lines[there] = lines[there], lines[here]
    elif what == 3:
        lines.insert(here, rng.choice(others))
    elif what == 4:
        lines[here] = lines[here].rstrip(b"\r\n")
    else:
        lines[here] = b"\x00" * len(lines[here]) + b"\n"
    return b"".join(lines)


_WORD = re.compile(rb"[\w.+-]+")


def _words(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Put an extreme, another word, or a word of another seed where a word stands."""
    found = list(_WORD.finditer(data))
    if not found:
        return data
    at = rng.choice(found)
    others = _WORD.findall(other) or [b"0"]
    word = rng.choice(
        (
            str(rng.choice(NUMBERS)).encode(),
            rng.choice(STRINGS).encode("utf-8", "surrogatepass"),
            rng.choice(found)[0],
            rng.choice(others),
            at[0] + at[0],
        )
    )
    return data[: at.start()] + word + data[at.end() :]


_BYTE_MUTATIONS = (
    *(_flip_bit, _set_byte, _insert, _delete_range, _repeat_range, _truncate, _splice),
    *(_lines, _lines, _words, _words, _words),
)


# Mutations of parsed data.


def mutated_data(rng: random.Random, data: Any) -> Any:
    """``data`` with one to three of its nodes replaced, moved, repeated or removed."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = _mutated_somewhere(rng, data)
    return data


def _mutated_somewhere(rng: random.Random, data: Any) -> Any:
    # Down the tree by chance, so that shallow and deep nodes both get their share.
    if isinstance(data, dict) and data and rng.random() < 0.8:
        key = rng.choice(list(data))
        if rng.random() < 0.15:
            return _with_other_keys(rng, data, key)
        return {k: _mutated_somewhere(rng, v) if k == key else v for k, v in data.items()}
    if isinstance(data, list) and data and rng.random() < 0.8:
        index = rng.randrange(len(data))
        if rng.random() < 0.2:
            return _with_other_items(rng, data, index)
        return [_mutated_somewhere(rng, v) if i == index else v for i, v in enumerate(data)]
    return _replacement(rng, data)


def _with_other_keys(rng: random.Random, data: dict[Any, Any], key: Any) -> dict[Any, Any]:
    rest = {k: v for k, v in data.items() if k != key}
    what = rng.randrange(3)
    if what == 0:
        return rest
    if what == 1:
        return rest | {rng.choice(STRINGS): data[key]}
    return data | {rng.choice((*STRINGS, 1, 1.5, "note")): data[key]}


def _with_other_items(rng: random.Random, data: list[Any], index: int) -> list[Any]:
    what = rng.randrange(3)
    if what == 0:
        return data[:index] + data[index + 1 :]
    if what == 1:
        return data + [data[index]] * rng.choice((1, 2, 50))
    return [*data, rng.choice((*NUMBERS, *STRINGS))]


def _replacement(rng: random.Random, old: Any) -> Any:
    if isinstance(old, int | float) and rng.random() < 0.6:
        return rng.choice((*NUMBERS, old + 1, -old))
    return rng.choice(
        (
            rng.choice(NUMBERS),
            rng.choice(STRINGS),
            *(None, [], {}, [old], {"x": old}, {"x": None}, [[]], str(old)[:50] + " "),
        )
    )


def _with_deep_nesting(data: bytes, rng: random.Random) -> bytes:
    depth = rng.choice((50, 500, 5000))
    brackets = b"[" * depth + b"]" * depth
    return re.sub(rb"""["']?@@deep@@["']?""", brackets, data, count=1)


def yaml_parse(data: bytes) -> Any:
    return yaml.safe_load(data)


def yaml_dump(data: Any) -> bytes:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode("utf-8")


def json_parse(data: bytes) -> Any:
    return json.loads(data)


def json_dump(data: Any) -> bytes:
    return json.dumps(data).encode()


def json_lines_parse(data: bytes) -> Any:
    return [json.loads(line) for line in data.splitlines()]


def json_lines_dump(data: Any) -> bytes:
    lines = data if isinstance(data, list) else [data]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)
