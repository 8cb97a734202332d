"""Products of two arrays whose gradients are written out, such as convolutions.

<dy, x * kernel> is linear in all three. Its derivatives by dy, x and the kernel are three functions, so that the gradient of
each of them is made of the other two, to any order.
"""

from collections.abc import Callable, Hashable
from typing import Any

import jax

from jgen.types import Array

Product = Callable[[Array, Array, Any], Array]
"""(two of x, kernel and dy, in this order but for the kernel before dy; settings and sizes) -> the third."""


def closed(multiplied: Product, by_image: Product, by_kernel: Product) -> tuple[Product, Product, Product]:
    """The functions (x, kernel, how) -> y, (kernel, dy, how) -> dx and (x, dy, how) -> dkernel, as each other's gradients.

    how is hashable, and the same for all three. Reverse-mode differentiation only.
    """

    def derived(function: Product) -> Any:
        made: Any = jax.custom_vjp(function, nondiff_argnums=(2,))
        return made

    y, dx, dk = derived(multiplied), derived(by_image), derived(by_kernel)

    def of_y(how: Hashable, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
        x, kernel = saved
        return dx(kernel, dy, how), dk(x, dy, how)

    def of_dx(how: Hashable, saved: tuple[Array, Array], x: Array) -> tuple[Array, Array]:
        kernel, dy = saved
        return dk(x, dy, how), y(x, kernel, how)

    def of_dk(how: Hashable, saved: tuple[Array, Array], kernel: Array) -> tuple[Array, Array]:
        x, dy = saved
        return dx(kernel, dy, how), y(x, kernel, how)

    for function, backward in ((y, of_y), (dx, of_dx), (dk, of_dk)):
        function.defvjp(lambda a, b, how, function=function: (function(a, b, how), (a, b)), backward)
    return y, dx, dk
