r"""Figure 4: gradients on the embedding at the start of self-training.

For one cluster j, the gradient norm \|∂L/∂z_i\| over q_ij for all rows i, and samples along q_ij.
The paper shows that rows near the centroid (high confidence) contribute most, and that gradients
vanish as confidence decreases.

    python -m benchmarks.paper fig4 --dataset mnist --preset fast --seeds 0

Expected: gradients grow with q_ij, and images become clearer from left to right.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from benchmarks.paper.cells import Laboratory, Rows
from benchmarks.paper.options import Options
from jdec.core.functional import clustering_loss, log_soft_assignment, target_distribution

DATASETS = DEFAULT_DATASETS = ("mnist",)

_SAMPLES = 12


def gradient_magnitudes(embedding: Any, centroids: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return q [N K] and the norm of the gradient of the summed KL in each embedding, [N]."""
    embedding, centroids = jnp.asarray(embedding), jnp.asarray(centroids)
    q = jnp.exp(log_soft_assignment(embedding, centroids))
    p = target_distribution(q)

    def loss(z: jax.Array) -> jax.Array:
        return clustering_loss(log_soft_assignment(z, centroids), p).sum()

    return np.asarray(q), np.linalg.norm(jax.grad(loss)(embedding), axis=1)


def draw(
    laboratory: Laboratory, options: Options, records: list[dict[str, Any]]
) -> dict[str, Figure]:
    """Draw gradients over q for one cluster, drawn by the seed, with samples along q."""
    figures = {}
    for dataset in options.datasets:
        seed = options.seeds[0]
        rows = Rows(dataset)
        data = laboratory.data(rows)
        start = laboratory.pretrained(rows, options.preset, seed)
        q, gradients = gradient_magnitudes(start.embedding, start.model.centroids)
        cluster = int(np.random.default_rng(seed).choice(np.unique(q.argmax(axis=1))))
        share = q[:, cluster]

        figure = Figure(figsize=(8.2, 5), dpi=110, layout="constrained")
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(4, 1))[:, 0]
        axes = above.subplots()
        members = q.argmax(axis=1) == cluster
        for shown, colour, label in (
            (~members, "0.7", "rows of other clusters"),
            (members, "tab:blue", f"rows of cluster {cluster}"),
        ):
            axes.scatter(share[shown], gradients[shown], s=4, c=colour, linewidths=0, label=label)
        axes.legend(markerscale=3)
        axes.set(
            xlabel=f"$q_{{ij}}$ of cluster j = {cluster}", ylabel=r"$|\partial L/\partial z_i|$"
        )
        axes.set_title(f"{dataset}: gradient on each row at the start of self-training")
        if data.image_shape is not None:
            own = np.where(members, share, np.inf)
            wanted = np.linspace(own.min(), share[members].max(), _SAMPLES)
            for panel, value in zip(below.subplots(1, _SAMPLES), wanted, strict=True):
                row = int(np.abs(own - value).argmin())
                panel.imshow(data.x[row].reshape(data.image_shape), cmap="gray_r")
                panel.set(xticks=[], yticks=[])
                panel.set_xlabel(f"{share[row]:.2f}", fontsize=8)
            below.suptitle(f"rows of cluster {cluster} along $q_{{ij}}$", fontsize=9)
        figures[dataset] = figure
    return figures
