"""Graph operations: each checks shapes and types in Python, then adds one node (a few of them several).

Tensors go by position, every number, flag and mode by keyword. Shapes are in ggml order (fastest dimension first). A
result lives in the arena of the first operand whose arena takes results.

Raises:
    ShapeError: the shapes do not fit; the message holds those of all operands.
    DTypeError: ggml has no kernel for the types.
    ParameterError: a number or mode is out of its range.
    ClosedError: an operand's arena was closed.
"""

from .arith import *  # noqa: F403
from .arith import __all__ as _arith
from .attention import *  # noqa: F403
from .attention import __all__ as _attention
from .conv import *  # noqa: F403
from .conv import __all__ as _conv
from .custom import *  # noqa: F403
from .custom import __all__ as _custom
from .deepseek import *  # noqa: F403
from .deepseek import __all__ as _deepseek
from .glu import *  # noqa: F403
from .glu import __all__ as _glu
from .image import *  # noqa: F403
from .image import __all__ as _image
from .mask import *  # noqa: F403
from .mask import __all__ as _mask
from .matmul import *  # noqa: F403
from .matmul import __all__ as _matmul
from .norm import *  # noqa: F403
from .norm import __all__ as _norm
from .recurrent import *  # noqa: F403
from .recurrent import __all__ as _recurrent
from .reduce import *  # noqa: F403
from .reduce import __all__ as _reduce
from .rope import *  # noqa: F403
from .rope import __all__ as _rope
from .rows import *  # noqa: F403
from .rows import __all__ as _rows
from .shape import *  # noqa: F403
from .shape import __all__ as _shape
from .train import *  # noqa: F403
from .train import __all__ as _train
from .unary import *  # noqa: F403
from .unary import __all__ as _unary

__all__ = sorted(
    [
        *_arith,
        *_attention,
        *_conv,
        *_custom,
        *_deepseek,
        *_glu,
        *_image,
        *_mask,
        *_matmul,
        *_norm,
        *_recurrent,
        *_reduce,
        *_rope,
        *_rows,
        *_shape,
        *_train,
        *_unary,
    ]
)
