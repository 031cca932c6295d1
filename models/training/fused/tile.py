"""A tile of a matrix in vector registers: the only part that is written for the processor.

Every product of the fused engine is a sum of outer products, ``tile[r, :] += a[r] * b[:]``, over a tile of `ROWS` rows
and `COLUMNS` columns that stays in registers until the sum is done. Python has no vectors, so the operations on a tile
are given to numba as LLVM code. LLVM maps 16 floats to the registers of the processor: one with AVX-512, two with AVX2,
four with NEON.

The operations are for functions that `compiled` compiles. Arrays are float32, one-dimensional and contiguous; offsets
and strides in them are counted in elements, and are not checked.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic, models, register_model

if TYPE_CHECKING:
    from collections.abc import Callable

COLUMNS: Final = 16
ROWS: Final = 12 if "+avx512f" in get_host_cpu_features().split(",") else 6
"""Number of rows that fit into registers beside ``b`` and one number of ``a``."""

_VECTOR: Final = ir.VectorType(ir.FloatType(), COLUMNS)
_TILE: Final = ir.ArrayType(_VECTOR, ROWS)
_ZERO: Final = ir.Constant(_VECTOR, [0.0] * COLUMNS)
_UNDEFINED: Final = ir.Constant(_VECTOR, ir.Undefined)
_FIRST_LANE: Final = ir.Constant(ir.IntType(32), 0)
_ONLY_FIRST_LANE: Final = ir.Constant(ir.VectorType(ir.IntType(32), COLUMNS), [0] * COLUMNS)


class Tile(types.Type):
    """numba's type of a tile; only compiled code can have tiles."""

    def __init__(self) -> None:
        super().__init__(name=f"Tile({ROWS}, {COLUMNS})")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, tile: Tile) -> None:  # noqa: ANN401  (numba's own)
        super().__init__(manager, tile, _TILE)  # type: ignore[no-untyped-call]  # numba is typed in part


_ARRAY: Final = types.Array(types.float32, 1, "C")
_PLACE: Final = types.intp
_tile: Final = Tile()


def _operation(returns: types.Type, *parameters: types.Type) -> Callable[[Callable[..., Any]], Any]:
    """Turn a function that emits LLVM code into one that numba can call; arrays become pointers."""

    def of(emit: Callable[..., Any]) -> Any:  # noqa: ANN401  (only numba knows)
        def code(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:  # noqa: ANN401  (numba's own)
            plain = [
                context.make_array(kind)(context, builder, value).data if kind is _ARRAY else value
                for kind, value in zip(signature.args, values, strict=True)
            ]
            result = emit(builder, *plain)
            return context.get_dummy_value() if returns is types.void else result

        def typed(context: Any, *arguments: Any) -> Any:  # noqa: ANN401, ARG001  (numba's own)
            return returns(*parameters), code

        functools.update_wrapper(typed, emit)
        builder, *others = inspect.signature(emit).parameters.values()
        typed.__signature__ = inspect.Signature([builder, *others])  # type: ignore[attr-defined]  # numba looks for it
        return intrinsic(typed)

    return of


@_operation(_tile)
def zeros(builder: ir.IRBuilder) -> ir.Value:
    """A tile of zeros."""
    return _packed(builder, [_ZERO] * ROWS)


@_operation(_tile, _ARRAY, _PLACE)
def repeated(builder: ir.IRBuilder, b: ir.Value, at: ir.Value) -> ir.Value:
    """A tile whose rows are all ``b[at:at + COLUMNS]``."""
    return _packed(builder, [_load(builder, b, at)] * ROWS)


@_operation(_tile, _tile, _ARRAY, _PLACE, _PLACE, _ARRAY, _PLACE)
def multiply_add(
    builder: ir.IRBuilder, tile: ir.Value, a: ir.Value, a_at: ir.Value, a_row: ir.Value, b: ir.Value, b_at: ir.Value
) -> ir.Value:
    """Return ``tile[r] + a[a_at + r * a_row] * b[b_at:b_at + COLUMNS]`` for each row r, fused if the processor can."""
    b_row = _load(builder, b, b_at)
    rows = []
    for sums in _rows(builder, tile):
        number = builder.load(builder.gep(a, [a_at]))
        lanes = builder.insert_element(_UNDEFINED, number, _FIRST_LANE)
        lanes = builder.shuffle_vector(lanes, _UNDEFINED, _ONLY_FIRST_LANE)
        rows.append(_multiply_add(builder, lanes, b_row, sums))
        a_at = builder.add(a_at, a_row)
    return _packed(builder, rows)


@_operation(_tile, _tile, _ARRAY, _PLACE, _PLACE)
def add(builder: ir.IRBuilder, tile: ir.Value, b: ir.Value, at: ir.Value, row: ir.Value) -> ir.Value:
    """Return ``tile[r] + b[at + r * row:][:COLUMNS]`` for each row r."""
    pairs = zip(_rows(builder, tile), _places(builder, at, row), strict=True)
    return _packed(builder, [builder.fadd(sums, _load(builder, b, place)) for sums, place in pairs])


@_operation(_tile, _tile)
def positive(builder: ir.IRBuilder, tile: ir.Value) -> ir.Value:
    """Apply ReLU to each number of a tile."""
    rows = _rows(builder, tile)
    return _packed(builder, [_where_positive(builder, numbers, numbers) for numbers in rows])


@_operation(_tile, _tile, _ARRAY, _PLACE, _PLACE)
def where_positive(builder: ir.IRBuilder, tile: ir.Value, h: ir.Value, at: ir.Value, row: ir.Value) -> ir.Value:
    """Return ``tile[r]`` where ``h[at + r * row:][:COLUMNS]`` is positive, else 0: the gradient of ReLU."""
    pairs = zip(_rows(builder, tile), _places(builder, at, row), strict=True)
    return _packed(builder, [_where_positive(builder, _load(builder, h, place), numbers) for numbers, place in pairs])


@_operation(types.void, _tile, _ARRAY, _PLACE, _PLACE)
def write(builder: ir.IRBuilder, tile: ir.Value, out: ir.Value, at: ir.Value, row: ir.Value) -> None:
    """Write a tile: ``out[at + r * row:][:COLUMNS] = tile[r]`` for each row r."""
    for numbers, place in zip(_rows(builder, tile), _places(builder, at, row), strict=True):
        builder.store(numbers, _vector_at(builder, out, place), align=4)


@_operation(types.void, _tile, _ARRAY, _PLACE)
def write_total(builder: ir.IRBuilder, tile: ir.Value, out: ir.Value, at: ir.Value) -> None:
    """Write the sum of all rows to ``out[at:at + COLUMNS]``."""
    total, *others = _rows(builder, tile)
    for numbers in others:
        total = builder.fadd(total, numbers)
    builder.store(total, _vector_at(builder, out, at), align=4)


# ---- building blocks -----------------------------------------------------------------------------------------------


def _rows(builder: ir.IRBuilder, tile: ir.Value) -> list[ir.Value]:
    return [builder.extract_value(tile, row) for row in range(ROWS)]


def _packed(builder: ir.IRBuilder, rows: list[ir.Value]) -> ir.Value:
    return cgutils.pack_array(builder, rows, _VECTOR)


def _places(builder: ir.IRBuilder, at: ir.Value, row: ir.Value) -> list[ir.Value]:
    places = [at]
    for _ in range(ROWS - 1):
        places.append(builder.add(places[-1], row))
    return places


def _vector_at(builder: ir.IRBuilder, array: ir.Value, at: ir.Value) -> ir.Value:
    return builder.bitcast(builder.gep(array, [at]), _VECTOR.as_pointer())


def _load(builder: ir.IRBuilder, array: ir.Value, at: ir.Value) -> ir.Value:
    return builder.load(_vector_at(builder, array, at), align=4)


def _where_positive(builder: ir.IRBuilder, what: ir.Value, numbers: ir.Value) -> ir.Value:
    return builder.select(builder.fcmp_ordered(">", what, _ZERO), numbers, _ZERO)


def _multiply_add(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{COLUMNS}f32")
    return builder.call(function, [a, b, c])
