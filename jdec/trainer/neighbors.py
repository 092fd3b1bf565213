"""The graph of nearest neighbours, found on the host among few numbers a row."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jdec.trainer.config import GraphConfig
from jdec.trainer.processes import broadcast_from_primary
from jdec.trainer.programs import Graph, components
from jdec.trainer.run import NotFiniteError, Run


def neighbor_graph(run: Run, embeddings: Any) -> Graph:
    """Return the graph that the settings ask for; one without neighbours if they do not.

    Of data there is one for all members, of embeddings one for each. Raises NotFiniteError if the
    embedding of a fit is not finite.
    """
    config, rows = run.plan.config, run.plan.rows
    if config.kmeans.select != "modularity" or rows.n_rows < 2:
        return Graph(None, None)  # type: ignore[arg-type]
    if config.graph.space == "data":
        points = rows.fetch(components(run.x, plan=run.plan))
        return Graph(nearest_neighbors(points, config.graph), points)  # type: ignore[arg-type]
    if run.members is None:
        points = rows.fetch(embeddings)
        if not np.isfinite(points).all():
            raise NotFiniteError(
                "k-means: the pretrained embedding is not finite; lower "
                "pretrain.optimizer.learning_rate"
            )
        return Graph(nearest_neighbors(points, config.graph), None)  # type: ignore[arg-type]
    # A member that is not finite ends, and lets the others go on.
    found = [
        nearest_neighbors(np.nan_to_num(of_member[: rows.n_rows], posinf=0, neginf=0), config.graph)
        for of_member in np.asarray(embeddings)
    ]
    return Graph(np.stack(found), None)  # type: ignore[arg-type]


def nearest_neighbors(
    points: Float[np.ndarray, "N d"], settings: GraphConfig
) -> Int[np.ndarray, "S k"]:
    """Return the index of a row, followed by those of its nearest other rows."""
    from sklearn.neighbors import NearestNeighbors  # slow to import, and needed here alone

    rows: Any = np.arange(len(points))
    if len(points) > settings.max_rows:
        # The same sample in all runs.
        rows = np.sort(np.random.default_rng(0).choice(rows, settings.max_rows, replace=False))
    n_neighbors = min(settings.n_neighbors, len(rows) - 1)
    search = NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute").fit(points[rows])
    found = search.kneighbors(return_distance=False)
    neighbors = rows[np.column_stack([np.arange(len(rows)), found])].astype(np.int32)
    # Other processors may round otherwise, but all processes must go the same way.
    return np.asarray(broadcast_from_primary(neighbors))
