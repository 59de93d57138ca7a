"""Products of matrices of many sizes, done before the first step.

The library picks a kernel by the sizes and loads it at its first use, for which the host stands
still for milliseconds, and other ranks wait. Every micro-batch has another number of tokens, so the
products of a few are noted and done again for numbers of tokens that the plan has.

T packed tokens, n target tokens of a micro-batch.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sbcore.plan.read import PlanFile

_MOST_SIZES = 128
"""Numbers of tokens that are tried; more find hardly a kernel more."""

_PRODUCTS = (
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.addmm_.default,
)

Size = int | str
"""A length, or `T` or `n` where it is that number."""


@dataclass(frozen=True)
class _Operand:
    """A vector or matrix; ``row`` is the distance of its rows in memory, columns' if turned."""

    shape: tuple[Size, ...]
    row: Size
    turned: bool
    dtype: torch.dtype

    @staticmethod
    def of(tensor: torch.Tensor, names: Mapping[int, str]) -> "_Operand":
        """Returns what is needed to make one of another size."""
        strides = tensor.stride()
        row = max(strides)
        turned = tensor.ndim == 2 and strides[0] < strides[1]
        shape = tuple(names.get(size, size) for size in tensor.shape)
        return _Operand(shape, names.get(row, row), turned, tensor.dtype)

    def make(self, sizes: Mapping[str, int], device: torch.device) -> torch.Tensor:
        """Returns one whose values nobody looks at."""
        shape = [_number(size, sizes) for size in self.shape]
        if len(shape) == 1:
            return torch.empty(shape, dtype=self.dtype, device=device)
        rows, columns = reversed(shape) if self.turned else shape
        width = max(_number(self.row, sizes), columns)
        whole = torch.empty(rows, width, dtype=self.dtype, device=device)[:, :columns]
        return whole.t() if self.turned else whole


@dataclass(frozen=True)
class Product:
    """One of a micro-batch, to be done for other numbers of tokens."""

    run: Callable[..., torch.Tensor]
    operands: tuple[_Operand, ...]
    options: tuple[tuple[str, Any], ...]

    def again(self, sizes: Mapping[str, int], device: torch.device) -> None:
        """Does it for as many tokens, and throws it away."""
        self.run(*(each.make(sizes, device) for each in self.operands), **dict(self.options))


@contextmanager
def noted_products(num_tokens: int, num_targets: int) -> Iterator[set[Product]]:
    """Yields the products of the block, which works on so many tokens; those alike are noted once.

    Compiled layers run uncompiled in it: the library would never again run one compiled that has
    met a mode like ours (torch 2.13).
    """
    with torch.compiler.set_stance("force_eager"), _Noting(num_tokens, num_targets) as noting:
        yield noting.found


class _Noting(TorchDispatchMode):
    def __init__(self, num_tokens: int, num_targets: int) -> None:
        super().__init__()
        self._names = {num_targets: "n", num_tokens: "T"}
        self.found: set[Product] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs what is called, and notes it if it is a product."""
        options = kwargs or {}
        if func in _PRODUCTS:
            operands = tuple(_Operand.of(each, self._names) for each in args)
            self.found.add(Product(func, operands, tuple(sorted(options.items()))))
        return func(*args, **options)


def token_counts(plan: PlanFile) -> list[int]:
    """Returns tokens of the plan's micro-batches, evenly chosen among those that differ."""
    steps = (plan.step(number) for number in range(plan.num_steps))
    totals = {
        int(step.lengths[list(micro)].sum())
        for step in steps
        for rank in step.batch.micro_batches
        for micro in rank
        if micro
    }
    places = np.linspace(0, len(totals) - 1, min(len(totals), _MOST_SIZES))
    return np.array(sorted(totals))[places.round().astype(int)].tolist()


def do_again(
    products: Iterable[Product], counts: Iterable[int], *, share: float, device: torch.device
) -> None:
    """Does the products for each number of tokens, that share of which are targets."""
    each = list(products)
    for tokens in counts:
        sizes = {"T": tokens, "n": max(round(share * tokens), 1)}
        for product in each:
            product.again(sizes, device)


def _number(size: Size, sizes: Mapping[str, int]) -> int:
    return sizes[size] if isinstance(size, str) else size
