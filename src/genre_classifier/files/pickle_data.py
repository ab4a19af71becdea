"""Read a pickle as data. Its opcodes are followed one by one; nothing that it names is imported or called.

A pickle is a program for a stack machine. This machine knows only the instructions that build values. If a pickle
calls something, the call is recorded as a :class:`Call`, and the format's reader interprets or refuses it. Neither
Python's unpickler nor any library sees the file. Keys of mappings are text or whole numbers of 64 bits: they hash
quickly, and no file can give thousands of keys the same hash.
"""

from __future__ import annotations

import pickletools
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

# Opcodes that push their own argument.
_VALUES: Final = frozenset(
    """
    BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    """.split()  # noqa: SIM905
)
_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES: Final = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
MAX_OPCODES: Final = 500_000  # 10,000 feature names take 20,000
_ORDERED: Final = "collections.OrderedDict"


@dataclass(frozen=True)
class Name:
    """A name that the pickle refers to. It is not looked up."""

    path: str


@dataclass(eq=False)
class Call:
    """A call that the pickle asks for. It is not made.

    Parameters
    ----------
    name : str
        Dotted path of the callable.
    arguments : tuple
    state : Any
        The state that the pickle sets on the result.
    """

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True, eq=False)
class Reference:
    """A reference to something outside of the pickle, such as a record of the same archive."""

    key: Any


class _Mark:
    """Marks the start of a list's, tuple's or mapping's items on the stack."""


class PickleError(ValueError):
    """A pickle is damaged, or has content that no file of this kind has."""


@dataclass
class _Machine:
    names: Collection[str]
    references: bool
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        if opcode in _VALUES:
            if opcode == "LONG1" and not -(2**63) <= argument < 2**63:
                raise PickleError("a whole number that 64 bits do not hold")
            stack.append(argument)
        elif opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode])
        elif opcode in _TUPLES:
            stack.append(tuple(self._pop(_TUPLES[opcode])))
        elif opcode == "TUPLE":
            stack.append(tuple(self._pop_to_mark()))
        elif opcode == "EMPTY_LIST":
            stack.append([])
        elif opcode == "EMPTY_DICT":
            stack.append({})
        elif opcode == "MARK":
            stack.append(_Mark)
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self._get_top()
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = self._get_top()
        elif opcode in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif opcode in ("APPEND", "APPENDS"):
            self._extend(self._pop(1) if opcode == "APPEND" else self._pop_to_mark())
        elif opcode in ("SETITEM", "SETITEMS"):
            self._set_items(self._pop(2) if opcode == "SETITEM" else self._pop_to_mark())
        elif opcode == "GLOBAL":
            self._push_name(str(argument).replace(" ", "."))
        elif opcode == "STACK_GLOBAL":
            module, name = self._pop(2)
            if type(module) is not str or type(name) is not str:
                raise PickleError("the pickle asks for a name that is no text")
            self._push_name(f"{module}.{name}")
        elif opcode in ("REDUCE", "NEWOBJ"):
            self._call(*self._pop(2))
        elif opcode == "BUILD":
            self._build(*self._pop(1))
        elif opcode == "BINPERSID" and self.references:
            stack.append(Reference(*self._pop(1)))
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            raise PickleError(f"the pickle uses {opcode}, which no such file does")

    def _get_top(self) -> Any:
        if not self.stack or self.stack[-1] is _Mark:
            raise PickleError("the pickle uses a value that is not there")
        return self.stack[-1]

    def _pop(self, count: int) -> list[Any]:
        start = len(self.stack) - count
        if start < 0:
            raise PickleError("the pickle uses a value that is not there")
        items = self.stack[start:]
        if any(item is _Mark for item in items):
            raise PickleError("the pickle uses a mark as a value")
        del self.stack[start:]
        return items

    def _pop_to_mark(self) -> list[Any]:
        for start in range(len(self.stack) - 1, -1, -1):
            if self.stack[start] is _Mark:
                items = self.stack[start + 1 :]
                del self.stack[start:]
                return items
        raise PickleError("the pickle closes what it did not open")

    def _extend(self, items: list[Any]) -> None:
        target = self._get_top()
        if type(target) is not list:
            raise PickleError(f"the pickle appends to a {type(target).__name__}")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._get_top()
        if type(target) is not dict or len(items) % 2:
            raise PickleError(f"the pickle sets items of a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int, bool):
                raise PickleError(f"the pickle has a mapping with a {type(key).__name__} for a key")
            target[key] = value

    def _push_name(self, path: str) -> None:
        if path not in self.names:
            raise PickleError(f"the pickle asks for {path[:200]}")
        self.stack.append(Name(path))

    def _call(self, name: Any, arguments: Any) -> None:
        if not isinstance(name, Name) or type(arguments) is not tuple:
            raise PickleError("the pickle calls what is no name")
        if name.path == _ORDERED and not arguments:
            self.stack.append({})
        else:
            self.stack.append(Call(name.path, arguments))

    def _build(self, state: Any) -> None:
        target = self._get_top()
        if isinstance(target, Call):
            target.state = state
        elif type(target) is not dict:  # the attributes of an OrderedDict: torch's versions of modules
            raise PickleError(f"the pickle sets the attributes of a {type(target).__name__}")


def read_pickle(content: bytes, names: Collection[str], *, references: bool = False) -> Any:
    """Return the value that a pickle of protocol 2 or later describes.

    Parameters
    ----------
    content : bytes
    names : collection of str
        The names that the pickle may refer to. Others are refused.
    references : bool
        Whether the pickle may refer to objects outside of it.

    Returns
    -------
    Any
        None, bool, int, float, str, bytes, and tuples, lists and mappings of them. Other objects are :class:`Call`,
        :class:`Name` and :class:`Reference`. An OrderedDict is a mapping. A value may occur in several places, and
        inside itself.

    Raises
    ------
    PickleError
        The pickle is damaged, or asks for something else.
    """
    machine = _Machine(names, references)
    end = -1
    try:
        for number, (opcode, argument, position) in enumerate(pickletools.genops(content)):
            if number > MAX_OPCODES:
                raise PickleError(f"the pickle has more than {MAX_OPCODES:,} steps")
            if opcode.name == "INST":
                raise PickleError(f"the pickle asks for {str(argument).replace(' ', '.')[:200]}")
            machine.step(opcode.name, argument)
            end = 0 if position is None else position
    except PickleError:
        raise
    except Exception as error:  # the standard library does not document the exceptions
        raise PickleError(f"truncated or not a pickle ({error!r:.200})") from error
    if end + 1 != len(content):
        raise PickleError(f"{len(content) - end - 1} bytes follow the end of the pickle")
    if len(machine.stack) != 1:
        raise PickleError("the pickle leaves more than one value")
    return machine._get_top()
