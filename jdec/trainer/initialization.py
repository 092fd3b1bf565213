"""Where self-training starts: a partition of the rows, or of a sample of many."""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jdec._typing import Params
from jdec.core.autoencoder import encoder_params, network_shapes
from jdec.core.kmeans import KMeansResult
from jdec.core.targets import DECParams
from jdec.trainer.neighbors import neighbor_graph
from jdec.trainer.programs import Graph, MemberOverrides, partition, select_rows
from jdec.trainer.run import Run, refresh_targets
from jdec.trainer.sharding import RowSharding
from jdec.trainer.streamed_rows import StreamedRows

#: Of rows that stay on the host, at most so many bytes are sent to the device for the start.
MAX_BYTES = 2**28


class Start(NamedTuple):
    """A partition of all rows, and of those that it was found on."""

    partition: KMeansResult  # of all rows, which have the nearest centroid unless in the sample
    run: Run  # of the sample
    labels: Int[Array, "*M S"]  # of the sample


def initialize(run: Run, params: Params, ks: Int[np.ndarray, "M"] | None = None) -> Start:
    """Partition the rows, or a sample of many, by their embedding or the graph of neighbours.

    ``ks`` are the numbers of clusters of members.
    """
    of_sample, indices = _sampled(run)
    encoders = encoder_params(run.plan.network, params)
    embeddings = of_sample.programs.embed(encoders, of_sample.x, plan=of_sample.plan)
    graph = neighbor_graph(of_sample, embeddings)
    if ks is None:
        found = partition(run.keys.kmeans, embeddings, graph=graph, plan=of_sample.plan)
    else:
        found = _partition_members(of_sample, ks, embeddings, graph)
    found = jax.block_until_ready(found)
    if indices is None:
        return Start(found, of_sample, found.labels)
    targets, _ = refresh_targets(run, DECParams(encoders, jnp.asarray(found.centroids)))
    labels = run.fetch(targets.labels)
    labels[..., indices] = found.labels
    return Start(found._replace(labels=labels), of_sample, found.labels)


def partition_shapes(run: Run) -> KMeansResult:
    """Return shapes and dtypes of the partition of a fit, as :func:`initialize` finds it."""
    plan = run.plan
    latent_dim = network_shapes(plan.network, run.x.shape[1]).latent_dim
    embeddings = jax.ShapeDtypeStruct((plan.rows.n_rows, latent_dim), jnp.float32)
    no_graph: Any = Graph(None, None)  # type: ignore[arg-type]
    without = partial(partition, graph=no_graph, plan=plan)
    return jax.eval_shape(without, run.keys.kmeans, embeddings)


def _partition_members(
    run: Run, ks: Int[np.ndarray, "M"], embeddings: Float[Array, "M n Z"], graph: Graph
) -> KMeansResult:
    """Partition the embeddings of members, those of equal K together."""
    plan, n_members = run.plan, len(ks)
    centroids = np.zeros((n_members, plan.config.n_clusters, embeddings.shape[-1]), np.float32)
    labels = np.zeros((n_members, plan.rows.n_rows), np.int32)
    others: list[Any] = [np.zeros(n_members, dtype) for dtype in (np.float32, np.int32, bool)]
    for k in np.unique(ks).tolist():
        chosen = np.flatnonzero(ks == k)
        items = (run.keys.kmeans, embeddings, MemberOverrides(run.overrides.alpha))
        key, part, overrides = jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], items)
        of_k = replace(plan, config=plan.config.replace({"n_clusters": k}))
        of_members = graph
        if graph.points is None and graph.neighbors is not None:
            of_members = graph._replace(neighbors=graph.neighbors[chosen])
        found = partition(key, part, overrides, of_members, plan=of_k)
        centroids[chosen, :k], labels[chosen] = found.centroids, found.labels
        for array, values in zip(others, found[2:], strict=True):
            array[chosen] = values
    return KMeansResult(jnp.asarray(centroids), labels, *others)  # type: ignore[arg-type]


def sample_size(run: Run) -> int:
    """Return how many rows the start is found on."""
    config, n_features = run.plan.config, run.x.shape[1]
    size = config.kmeans.max_rows
    if isinstance(run.x, StreamedRows) and _needs_rows(run):
        size = min(size, MAX_BYTES // (4 * n_features))
    return min(max(size, config.n_clusters), run.plan.rows.n_rows)


def _needs_rows(run: Run) -> bool:
    """Whether the start needs the rows themselves, and not their embeddings alone."""
    config = run.plan.config
    follows_rows = config.kmeans.select == "modularity" and config.graph.space == "data"
    return follows_rows or bool(config.clustering.warmup_steps and config.clustering.max_intervals)


def _sampled(run: Run) -> tuple[Run, Int[np.ndarray, "S"] | None]:
    """Return the run of the rows that the start is found on, and their indices unless all."""
    n_rows, size, x = run.plan.rows.n_rows, sample_size(run), run.x
    stays = isinstance(x, StreamedRows) and not _needs_rows(run)
    if size == n_rows and (stays or not isinstance(x, StreamedRows)):
        return run, None
    indices = np.arange(n_rows)
    if size < n_rows:
        # The same sample in all runs: members of a population share it.
        indices = np.sort(np.random.default_rng(0).choice(n_rows, size, replace=False))
    rows = RowSharding(size, run.plan.rows.mesh)
    if isinstance(x, StreamedRows):
        x = x.subset(indices) if stays else rows.put(x.take(indices[rows.local()]))
    else:
        padding = np.zeros(rows.padded_length - size, int)
        x = select_rows(x, np.concatenate([indices, padding]), rows=rows)
    of_sample = replace(run, x=x, plan=replace(run.plan, rows=rows))
    return of_sample, None if size == n_rows else indices
