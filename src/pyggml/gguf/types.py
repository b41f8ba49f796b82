"""Element types of tensors and value types of metadata, as numbered by the GGUF format.

The sizes are those of ggml 0.25.3 (``ggml_blck_size`` and ``ggml_type_size``): a tensor's rows are cut into
blocks of
:attr:`GGMLType.block_size` elements, and each block takes :attr:`GGMLType.type_size` bytes.
"""

from dataclasses import dataclass
from enum import IntEnum
from math import prod

__all__ = ["FieldType", "GGMLType", "TensorInfo", "ValueType"]


class GGMLType(IntEnum):
    """``enum ggml_type``: how the elements of a tensor are stored. Missing numbers were withdrawn by ggml."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q8_1 = 9
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    Q8_K = 15
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    IQ1_M = 29
    BF16 = 30
    TQ1_0 = 34
    TQ2_0 = 35
    MXFP4 = 39
    NVFP4 = 40
    Q1_0 = 41
    Q2_0 = 42

    @property
    def block_size(self) -> int:
        """Elements per block; the first dimension of a tensor is a multiple of it."""
        return _BLOCKS[self][0]

    @property
    def type_size(self) -> int:
        """Bytes per block."""
        return _BLOCKS[self][1]

    @property
    def is_quantized(self) -> bool:
        """True where one block holds more than one element."""
        return self.block_size > 1

    def n_bytes(self, n_elements: int) -> int:
        """Bytes of ``n_elements`` elements (whole blocks).

        Raises:
            ValueError: ``n_elements`` is not a multiple of :attr:`block_size`.
        """
        blocks, rest = divmod(n_elements, self.block_size)
        if rest:
            raise ValueError(f"{n_elements} elements are not whole {self.name} blocks of {self.block_size}")
        return blocks * self.type_size


# type: (elements per block, bytes per block)
_BLOCKS: dict[GGMLType, tuple[int, int]] = {
    GGMLType.F32: (1, 4),
    GGMLType.F16: (1, 2),
    GGMLType.BF16: (1, 2),
    GGMLType.F64: (1, 8),
    GGMLType.I8: (1, 1),
    GGMLType.I16: (1, 2),
    GGMLType.I32: (1, 4),
    GGMLType.I64: (1, 8),
    GGMLType.Q1_0: (128, 18),
    GGMLType.Q2_0: (64, 18),
    GGMLType.Q4_0: (32, 18),
    GGMLType.Q4_1: (32, 20),
    GGMLType.Q5_0: (32, 22),
    GGMLType.Q5_1: (32, 24),
    GGMLType.Q8_0: (32, 34),
    GGMLType.Q8_1: (32, 36),
    GGMLType.MXFP4: (32, 17),
    GGMLType.NVFP4: (64, 36),
    GGMLType.Q2_K: (256, 84),
    GGMLType.Q3_K: (256, 110),
    GGMLType.Q4_K: (256, 144),
    GGMLType.Q5_K: (256, 176),
    GGMLType.Q6_K: (256, 210),
    GGMLType.Q8_K: (256, 292),
    GGMLType.IQ1_S: (256, 50),
    GGMLType.IQ1_M: (256, 56),
    GGMLType.IQ2_XXS: (256, 66),
    GGMLType.IQ2_XS: (256, 74),
    GGMLType.IQ2_S: (256, 82),
    GGMLType.IQ3_XXS: (256, 98),
    GGMLType.IQ3_S: (256, 110),
    GGMLType.IQ4_NL: (32, 18),
    GGMLType.IQ4_XS: (256, 136),
    GGMLType.TQ1_0: (256, 54),
    GGMLType.TQ2_0: (256, 66),
}


class ValueType(IntEnum):
    """``enum gguf_type``: the type of a metadata value."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12

    @property
    def numpy_dtype(self) -> str | None:
        """The little-endian numpy dtype of a number or bool; None for strings and arrays."""
        return _DTYPES.get(self)


_DTYPES: dict[ValueType, str] = {
    ValueType.UINT8: "|u1",
    ValueType.INT8: "|i1",
    ValueType.UINT16: "<u2",
    ValueType.INT16: "<i2",
    ValueType.UINT32: "<u4",
    ValueType.INT32: "<i4",
    ValueType.FLOAT32: "<f4",
    ValueType.BOOL: "|b1",
    ValueType.UINT64: "<u8",
    ValueType.INT64: "<i8",
    ValueType.FLOAT64: "<f8",
}


@dataclass(frozen=True, slots=True)
class FieldType:
    """The stored type of a metadata value: a scalar type, or ``ARRAY`` with its items' type and number."""

    type: ValueType
    item: ValueType | None = None
    length: int = 0

    def __str__(self) -> str:
        if self.item is None:
            return self.type.name.lower()
        return f"{self.item.name.lower()}[{self.length}]"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies and what it looks like.

    Attributes:
        name: The tensor's name, e.g. ``blk.0.attn_q.weight``.
        shape: Dimensions in ggml order (``ne``): the first one is contiguous. numpy's order is the reverse.
        type: The element type.
        offset: Absolute position of the data in its file, in bytes.
        n_bytes: Size of the data, in bytes.
        part: Which file of a split model holds the data, from 0; 0 where there is one file.
    """

    name: str
    shape: tuple[int, ...]
    type: GGMLType
    offset: int
    n_bytes: int
    part: int = 0

    @property
    def n_elements(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def numpy_shape(self) -> tuple[int, ...]:
        """The shape in numpy order (the last dimension is contiguous)."""
        return self.shape[::-1]
