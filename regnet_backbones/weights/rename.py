"""One engine for every table of names: theirs to ours, and back by the same rows.

A row names a module, ``"layer{i}.{j-1}.conv1": "s{i}.b{j}.f.a"``: ``{i}`` is the stage and ``{j}`` the block,
both counted from 1 as in pycls; ``{j-1}`` says that they count it from 0. The last part of a key (``weight``,
``running_mean``, ...) is the same everywhere. ``None`` on the right drops a module on purpose.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_PLACEHOLDER = re.compile(r"\{([ij])([+-]\d)?\}")
_NUMBER = r"(0|[1-9]\d{0,3})"


class Rename:
    """Names of one side to names of the other, by the rows of ``table`` from left to right."""

    def __init__(self, table: Mapping[str, str | None]) -> None:
        self._rules = [(_pattern(left), right) for left, right in table.items()]

    def __call__(self, key: str) -> str | None:
        """The new name of ``key``, or None where the table drops it.

        Raises:
            KeyError: no row is for this key.
        """
        module, _, leaf = key.rpartition(".")
        if leaf in LEAVES:
            for (pattern, slots), right in self._rules:
                match = pattern.fullmatch(module)
                numbers = _numbers(match, slots) if match else None
                if numbers is not None:
                    return None if right is None else f"{_filled(right, numbers)}.{leaf}"
        raise KeyError(key)


def inverse(table: Mapping[str, str | None]) -> dict[str, str]:
    """The same rows from right to left; what is dropped has no way back."""
    return {right: left for left, right in table.items() if right is not None}


def placed(template: str, stage: int, block: int) -> str:
    """``template`` for one stage and block, counted from 1."""
    return _filled(template, {"i": stage, "j": block})


def _pattern(template: str) -> tuple[re.Pattern, list[tuple[str, int]]]:
    """A pattern with one group per placeholder, and what each group counts."""
    texts = _PLACEHOLDER.split(template)[::3]
    slots = [(m[1], int(m[2] or 0)) for m in _PLACEHOLDER.finditer(template)]
    return re.compile(_NUMBER.join(map(re.escape, texts))), slots


def _numbers(match: re.Match, slots: list[tuple[str, int]]) -> dict[str, int] | None:
    """Stage and block of a match; None when a name repeats one of them differently, or counts below 1."""
    numbers: dict[str, int] = {}
    for text, (letter, offset) in zip(match.groups(), slots, strict=True):
        number = int(text) - offset
        if number < 1 or numbers.setdefault(letter, number) != number:
            return None
    return numbers


def _filled(template: str, numbers: Mapping[str, int]) -> str:
    return _PLACEHOLDER.sub(lambda m: str(numbers[m[1]] + int(m[2] or 0)), template)
