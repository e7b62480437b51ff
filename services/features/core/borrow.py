"""Two intrinsics for the inside of kernels: arrays without an owner, and loads ahead of time.

Numba counts references with atomic instructions at every call and every field of a tuple; in kernels that
call small kernels for each row that is most of the time. A borrowed array has nothing to count. And rows of
many entities lie all over the memory: asking for those of later rows early hides most of the wait.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba.core import cgutils as _cgutils
from numba.core import types
from numba.extending import intrinsic
from numba.np import arrayobj

A = TypeVar("A")

# Numba's own modules are not typed.
cgutils: Any = _cgutils
make_array: Any = arrayobj.make_array
ir: Any = cgutils.ir


def _borrowed(_typing: Any, array: Any) -> Any:
    if not isinstance(array, types.Array):
        return None

    def codegen(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        view = make_array(array)(context, builder, value=arguments[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        view.parent = cgutils.get_null_value(view.parent.type)
        return view._getvalue()

    return array(array), codegen


# The same memory, valid only while the caller's array lives: never return one from a kernel.
borrowed = cast(Callable[[A], A], intrinsic(_borrowed))


def _prefetch(_typing: Any, array: Any, row: Any, column: Any) -> Any:
    if not isinstance(array, types.Array):
        return None

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = make_array(array)(context, builder, value=arguments[0])
        place = builder.bitcast(view.data, ir.IntType(8).as_pointer())
        for stride, index, kind in zip(
            cgutils.unpack_tuple(builder, view.strides), arguments[1:], signature.args[1:], strict=True
        ):
            at = context.cast(builder, index, kind, types.intp)
            place = builder.gep(place, [builder.mul(at, stride)])
        number = ir.IntType(32)
        called = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, called, "llvm.prefetch.p0i8")
        # Arguments: for reading, keep in all levels of the cache, data.
        builder.call(function, [place, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.none(array, row, column), codegen


# Ask for the cache line of `array[row, column]`; a place outside the array is safe.
prefetch = cast(Callable[[Any, int, int], None], intrinsic(_prefetch))
