"""Types shared by the annotations of the library.

Shape letters: N rows, B batch, D features, Z latent dimensions, K clusters, S steps.
"""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float

#: A pytree of arrays: dictionaries, tuples or lists of weights.
Params = Any

#: ``encode(params, x [B D]) -> embeddings [B Z]``: all that self-training knows of a network.
EncodeFn = Callable[[Params, Float[Array, "B D"]], Float[Array, "B Z"]]
