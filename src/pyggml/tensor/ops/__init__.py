"""Graph operations: each checks shapes and types in Python, then adds one node.

Tensors go by position, every number, flag and mode by keyword. Shapes are in ggml order (fastest dimension first). A
result lives in the arena of the first operand whose arena is not static.
"""

from .arith import *  # noqa: F403
from .arith import __all__ as _arith
from .attention import *  # noqa: F403
from .attention import __all__ as _attention
from .matmul import *  # noqa: F403
from .matmul import __all__ as _matmul
from .norm import *  # noqa: F403
from .norm import __all__ as _norm
from .rows import *  # noqa: F403
from .rows import __all__ as _rows
from .shape import *  # noqa: F403
from .shape import __all__ as _shape
from .unary import *  # noqa: F403
from .unary import __all__ as _unary

__all__ = sorted([*_arith, *_attention, *_matmul, *_norm, *_rows, *_shape, *_unary])
