"""Deep Embedded Clustering as a scikit-learn estimator."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from jaxtyping import Float, Int
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
)
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from jdec._checks import as_path, check_flag, check_seed, shown
from jdec._columns import column_names
from jdec._validation import can_reconstruct, make_generator, validate_rows
from jdec.core.dec import ExtraLossFn
from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.history import Callback
from jdec.trainer.inputs import check_config
from jdec.trainer.model import assign
from jdec.trainer.model_file import load_model, save_model
from jdec.trainer.presets import preset_config
from jdec.trainer.programs import AugmentFn

# What is kept with a model, and read from its file: nothing else of a file becomes an attribute.
_SAVED: dict[str, type] = {
    "labels_": np.ndarray,
    "embedding_": np.ndarray,
    "n_iter_": int,
    "stop_reason_": str,
    "history_": list,
}

# Arguments of the estimator that are arguments of the fit.
_HANDED_ON = (
    *("network", "extra_loss", "augment", "tx", "rows", "callbacks"),
    *("workdir", "resume", "checkpoint_seconds"),
)


# scikit-learn reads the parameters off the signature, and compares estimators by identity.
@dataclass(eq=False, repr=False)
class DEC(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """Deep Embedded Clustering: an autoencoder whose embedding learns to form clusters.

    Args:
        n_clusters: Number of clusters K.
        preset: ``fast`` (minutes on a CPU) or ``paper`` (the authors' constants).
        hidden_dims: Widths between the data and the embedding. None takes the preset's value, of
            this and of the arguments up to ``scaling``.
        latent_dim: Width of the embedding.
        pretrain_steps: End-to-end pretraining steps.
        update_interval: Mini-batch steps between refreshes of the target distribution.
        max_intervals: Maximum number of refreshes.
        alpha: Degrees of freedom of Student's t kernel.
        tol: Stop when fewer than this share of the labels change.
        scaling: ``rms``, ``standard``, ``minmax`` or ``none``.
        image_shape: (height, width) or (height, width, channels) of rows that are images.
        settings: Any other field of :class:`jdec.Config` by its dotted name, such as
            ``{"pretrain.layerwise_steps": 1000}``.
        config: A whole configuration, in place of all arguments above.
        network: An autoencoder that is not built in, as in :func:`jdec.fit`.
        extra_loss: Added to the KL, as in :func:`jdec.fit`.
        augment: Alters mini-batches, as in :func:`jdec.fit`.
        tx: Optax optimizers by phase, as in :func:`jdec.fit`.
        rows: Where the rows are while it trains: ``auto``, ``device`` or ``stream``, as in
            :func:`jdec.fit`.
        callbacks: Called with each record of the history, as in :func:`jdec.fit`.
        random_state: Integer seed (``jax.random.key`` of it is the key of :func:`jdec.fit`), NumPy
            RandomState, or None.
        workdir: Folder for checkpoints of one fit; None for GridSearchCV, which fits many times.
        resume: Resume the interrupted run in ``workdir``.
        checkpoint_seconds: As in :func:`jdec.fit`.
        verbose: Show progress bars.

    Attributes:
        labels_: Cluster of each row, [N] int32: the largest entry of ``predict_proba``.
        cluster_centers_: Centroids in the embedding, [K Z].
        embedding_: The rows' embeddings, [N Z].
        n_iter_: Intervals of the clustering phase.
        stop_reason_: ``tol`` or ``max_intervals``.
        history_: Records of the run, see :func:`jdec.fit`.
        model_: The trained :class:`jdec.Model`.
        n_features_in_: D.

    Examples:
        >>> from sklearn.datasets import make_blobs
        >>> X, _ = make_blobs(60, centers=3, n_features=4, random_state=0)
        >>> dec = DEC(3, hidden_dims=(16,), latent_dim=2, pretrain_steps=100, random_state=0)
        >>> labels = dec.fit_predict(X)
        >>> bool((labels == dec.predict(X)).all())
        True

    Source: Xie et al. 2016.
    """

    n_clusters: int = 8
    _: KW_ONLY
    preset: str = "fast"
    hidden_dims: tuple[int, ...] | None = None
    latent_dim: int | None = None
    pretrain_steps: int | None = None
    update_interval: int | None = None
    max_intervals: int | None = None
    alpha: float | None = None
    tol: float | None = None
    scaling: str | None = None
    image_shape: tuple[int, ...] | None = None
    settings: Mapping[str, Any] | None = None
    config: Config | None = None
    network: Any = None
    extra_loss: ExtraLossFn | None = None
    augment: AugmentFn | None = None
    tx: Mapping[str, Any] | None = None
    rows: str = "auto"
    callbacks: Sequence[Callback] = ()
    random_state: int | np.random.RandomState | None = None
    workdir: str | Path | None = None
    resume: bool = False
    checkpoint_seconds: float = 30.0
    verbose: bool = False

    def fit(self, X: Any, y: Any = None) -> Self:
        """Cluster the rows of X.

        Args:
            X: Rows, [N D], numeric and finite.
            y: Ignored.

        Raises:
            ValueError: For bad input or settings.
        """
        self._check_workdir()
        check_flag("verbose", self.verbose)
        names, X = column_names(X), validate_rows(self, X, reset=True)
        result = fit(
            self._key(),
            X,
            self._config(len(X)),
            feature_names=names,
            **{name: getattr(self, name) for name in _HANDED_ON},
            progress=self.verbose,
        )
        self.model_ = result.model
        self.cluster_centers_ = np.asarray(result.model.centroids)
        self.labels_ = result.labels
        self.embedding_ = result.embedding
        self.n_iter_ = result.n_intervals
        self.stop_reason_ = result.stop_reason
        self.history_ = result.history
        return self

    def fit_predict(self, X: Any, y: Any = None) -> Int[np.ndarray, "N"]:
        """Cluster the rows of X and return ``labels_``; ``y`` is ignored."""
        return self.fit(X).labels_

    def predict(self, X: Any) -> Int[np.ndarray, "N"]:
        """Return the cluster of each row, [N] int32: the max of ``predict_proba``."""
        return self.predict_proba(X).argmax(axis=1).astype(np.int32)

    def predict_proba(self, X: Any) -> Float[np.ndarray, "N K"]:
        """Return the soft assignment q of each row, [N K] (Xie et al. 2016, Eq. 1)."""
        return self._assign(X)[1]

    def transform(self, X: Any) -> Float[np.ndarray, "N Z"]:
        """Return the embedding of each row, [N Z]."""
        return self._assign(X)[0]

    @available_if(can_reconstruct)
    def inverse_transform(self, X: Any) -> Float[np.ndarray, "N D"]:
        """Reconstruct rows from embeddings [N Z]; see :meth:`jdec.Model.inverse_transform`."""
        check_is_fitted(self)
        return self.model_.inverse_transform(X)

    def save(self, path: str | Path) -> None:
        """Write the fitted estimator to one file, whole or not at all; no pickles.

        Args:
            path: File name, by custom ending in .npz; its folder must exist.

        Raises:
            ValueError: If the file cannot be written.
        """
        check_is_fitted(self)
        # One that was loaded from the model of a sweep has none of them.
        extra = {name: getattr(self, name) for name in _SAVED if hasattr(self, name)}
        save_model(path, self.model_, extra)

    @classmethod
    def load(cls, path: str | Path, *, network: Any = None) -> Self:
        """Read an estimator from a file that :meth:`save`, ``jdec fit`` or ``jdec sweep`` wrote.

        Args:
            path: The file.
            network: The autoencoder of a model that was trained with one that is not built in.

        Returns:
            A fitted estimator with the ``config`` of the run. Of a sweep's model, ``labels_`` and
            other attributes of the rows of a single fit are missing.

        Raises:
            ValueError: If the file is missing, damaged, not a model, or holds what no fit has.
        """
        model, extra = load_model(path, network=network)
        for name, value in extra.items():
            if name not in _SAVED or not isinstance(value, _SAVED[name]):
                raise ValueError(
                    f"model: {path} is damaged or not a jdec model: expected "
                    f"{', '.join(_SAVED)} beside the model, got {name!r} ({type(value).__name__})"
                )
        estimator = cls(model.config.n_clusters, config=model.config, network=network)
        estimator.model_, estimator.n_features_in_ = model, len(model.scaling.shift)
        estimator.cluster_centers_ = np.asarray(model.centroids)
        for name, value in extra.items():
            setattr(estimator, name, value)
        if model.feature_names is not None:
            estimator.feature_names_in_ = np.array(model.feature_names, dtype=object)
        return estimator

    def _assign(self, X: Any) -> tuple[Float[np.ndarray, "N Z"], Float[np.ndarray, "N K"]]:
        check_is_fitted(self)
        rows = validate_rows(self, X, reset=False)
        return assign(self.model_, rows, feature_names=column_names(X, numbers=True))

    def _check_workdir(self) -> None:
        if self.workdir is None or self.resume:
            return
        record = as_path("workdir", self.workdir) / "run.json"
        if record.exists():
            raise ValueError(
                f"workdir: {record.parent} already holds a run; resume=True resumes it. An "
                "estimator that is fitted many times, as in GridSearchCV, needs workdir=None"
            )

    def _key(self) -> Any:
        if isinstance(self.random_state, int | np.integer):
            check_seed("random_state", self.random_state)
            return jax.random.key(int(self.random_state))
        return jax.random.key(make_generator(self.random_state).randint(2**31 - 1))

    def _config(self, n_rows: int) -> Config:
        if self.config is not None:
            check_config(self.config)
            return self.config
        if self.settings is not None and not isinstance(self.settings, Mapping):
            raise ValueError(
                'settings: expected a mapping such as {"kmeans.n_init": 5}, '
                f"got {type(self.settings).__name__} {shown(self.settings)}"
            )
        config = preset_config(
            self.preset, n_clusters=self.n_clusters, n_rows=n_rows, image_shape=self.image_shape
        )
        given = {
            "network.hidden_dims": self.hidden_dims,
            "network.latent_dim": self.latent_dim,
            "pretrain.finetune_steps": self.pretrain_steps,
            "clustering.update_interval": self.update_interval,
            "clustering.max_intervals": self.max_intervals,
            "clustering.alpha": self.alpha,
            "clustering.tol": self.tol,
            "scaling": self.scaling,
        }
        fields = {name: value for name, value in given.items() if value is not None}
        return config.replace(fields | dict(self.settings or {}))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.model_.centroids.shape[1]
