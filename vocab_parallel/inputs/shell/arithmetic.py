"""Shell arithmetic on whole numbers: `$(( 8 * (2 + 1) ))`."""

import ast
import operator
from collections.abc import Callable

from common.errors import InputError

_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.cmpop], Callable[[int, int], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_LARGEST = 2**63


def whole(text: str) -> int:
    """Return the value of an expression of whole numbers; division cuts off, as the shell's."""
    plain = text.strip().replace("&&", " and ").replace("||", " or ")
    if not plain:
        return 0
    try:
        return _value(ast.parse(plain, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise InputError(f"(({text})) is no sum of whole numbers; write its value") from error


def _value(node: ast.expr) -> int:
    match node:
        case ast.Constant(value=int() as number):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner)
        case ast.BinOp(left=left, op=ast.Div() | ast.FloorDiv(), right=right):
            a, b = _value(left), _value(right)
            return (abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1)
        case ast.BinOp(left=left, op=ast.Mod(), right=right):
            a, b = _value(left), _value(right)
            return abs(a) % abs(b) * (-1 if a < 0 else 1)
        case ast.BinOp(left=left, op=found, right=right) if type(found) in _BINARY:
            return _bounded(_BINARY[type(found)], _value(left), _value(right))
        case ast.Compare(left=left, ops=[found], comparators=[right]) if type(found) in _COMPARE:
            return int(_COMPARE[type(found)](_value(left), _value(right)))
        case ast.BoolOp(op=ast.And(), values=values):
            return int(all(_value(value) for value in values))
        case ast.BoolOp(op=ast.Or(), values=values):
            return int(any(_value(value) for value in values))
        case _:
            raise ValueError


def _bounded(apply: Callable[[int, int], int], a: int, b: int) -> int:
    if apply is operator.pow and (b < 0 or b > 64 or abs(a) > _LARGEST):
        raise ValueError
    return apply(a, b)
