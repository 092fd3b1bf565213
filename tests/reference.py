"""The method in plain float64 NumPy, straight from the equations: slow, and free of jdec.

Parameters are nested dictionaries ``{"encoder_0": {"kernel": [D H], "bias": [H]}, …}``.
"""

import itertools

import numpy as np


def as_float64(tree):
    """Return the same dictionaries with float64 arrays."""
    if isinstance(tree, dict):
        return {name: as_float64(leaf) for name, leaf in tree.items()}
    return np.asarray(tree).astype(np.float64)


# Equations 1 to 5.


def soft_assignment(z, mu, alpha=1.0):
    """Eq. 1."""
    z, mu = as_float64(z), as_float64(mu)
    kernel = np.zeros((len(z), len(mu)))
    for i in range(len(z)):
        for j in range(len(mu)):
            distance = ((z[i] - mu[j]) ** 2).sum()
            kernel[i, j] = (1 + distance / alpha) ** (-(alpha + 1) / 2)
    return kernel / kernel.sum(axis=1, keepdims=True)


def cluster_frequencies(q):
    """f of Eq. 3."""
    return as_float64(q).sum(axis=0)


def target_distribution(q, frequencies=None):
    """Eq. 3; a cluster without any weight gets none."""
    q = as_float64(q)
    f = cluster_frequencies(q) if frequencies is None else as_float64(frequencies)
    p = np.zeros_like(q)
    for i in range(len(q)):
        for j in range(q.shape[1]):
            if q[i, j] > 0:
                p[i, j] = q[i, j] ** 2 / f[j]
        p[i] /= p[i].sum()
    return p


def kl(p, q):
    """Eq. 2, row by row; 0 log 0 = 0."""
    p, q = as_float64(p), as_float64(q)
    loss = np.zeros(len(p))
    for i in range(len(p)):
        for j in range(p.shape[1]):
            if p[i, j] > 0:
                loss[i] += p[i, j] * np.log(p[i, j] / q[i, j])
    return loss


def kl_gradients(z, mu, p, alpha=1.0):
    """Eqs. 4 and 5: of the sum of the rows' KL."""
    z, mu, p = as_float64(z), as_float64(mu), as_float64(p)
    q = soft_assignment(z, mu, alpha)
    grad_z, grad_mu = np.zeros_like(z), np.zeros_like(mu)
    for i in range(len(z)):
        for j in range(len(mu)):
            difference = z[i] - mu[j]
            weight = (p[i, j] - q[i, j]) / (1 + (difference**2).sum() / alpha)
            grad_z[i] += (alpha + 1) / alpha * weight * difference
            grad_mu[j] -= (alpha + 1) / alpha * weight * difference
    return grad_z, grad_mu


# k-means and accuracy.


def squared_distances(x, centroids):
    """Between all rows and all centroids."""
    x, centroids = as_float64(x), as_float64(centroids)
    return np.stack([((x - centroid) ** 2).sum(axis=1) for centroid in centroids], axis=1)


def inertia(x, centroids):
    """Sum of the squared distances to the nearest centroid."""
    return squared_distances(x, centroids).min(axis=1).sum()


def lloyd(x, seeds, n_iter):
    """Lloyd's iterations; an empty cluster stays where it is."""
    x, centroids = as_float64(x), as_float64(seeds).copy()
    for _ in range(n_iter):
        labels = squared_distances(x, centroids).argmin(axis=1)
        for cluster in range(len(centroids)):
            if (labels == cluster).any():
                centroids[cluster] = x[labels == cluster].mean(axis=0)
    return centroids


def clustering_accuracy(labels_true, labels_pred):
    """Eq. 10, over all mappings of clusters to classes or to nothing, each class used once."""
    labels_true, labels_pred = list(labels_true), list(labels_pred)
    classes = sorted(set(labels_true))
    clusters = sorted(set(labels_pred))
    targets = [*classes, *[None] * len(clusters)]
    best = 0
    for mapping in set(itertools.permutations(targets, len(clusters))):
        matched = dict(zip(clusters, mapping, strict=True))
        right = sum(matched[c] == t for c, t in zip(labels_pred, labels_true, strict=True))
        best = max(best, right)
    return best / len(labels_true)


# The autoencoder: a list of layers (kernel, bias, rectified).


def encoder_layers(params):
    """Layers from the data to the embedding, which is linear."""
    params = as_float64(params)
    n = sum(name.startswith("encoder_") for name in params)
    return [
        (params[f"encoder_{i}"]["kernel"], params[f"encoder_{i}"]["bias"], i < n - 1)
        for i in range(n)
    ]


def decoder_layers(params):
    """Layers from the embedding to the reconstruction, which is linear."""
    params = as_float64(params)
    n = sum(name.startswith("decoder_") for name in params)
    return [
        (params[f"decoder_{i}"]["kernel"], params[f"decoder_{i}"]["bias"], i > 0)
        for i in reversed(range(n))
    ]


def forward(layers, x):
    """Return the input and the output of every layer."""
    activations = [as_float64(x)]
    for kernel, bias, rectified in layers:
        y = activations[-1] @ kernel + bias
        activations.append(np.maximum(y, 0) if rectified else y)
    return activations


def backward(layers, activations, grad):
    """Return (∂L/∂kernel, ∂L/∂bias) of every layer and ∂L/∂input, given ∂L/∂output."""
    grads = []
    for (kernel, _, rectified), x, y in zip(
        reversed(layers), reversed(activations[:-1]), reversed(activations[1:]), strict=True
    ):
        if rectified:
            grad = grad * (y > 0)
        grads.append((x.T @ grad, grad.sum(axis=0)))
        grad = grad @ kernel.T
    return grads[::-1], grad


def encode(params, x):
    """Embed rows."""
    return forward(encoder_layers(params), x)[-1]


def decode(params, z):
    """Reconstruct rows from embeddings."""
    return forward(decoder_layers(params), z)[-1]


def _named(prefix, order, grads):
    return {
        f"{prefix}_{i}": {"kernel": kernel, "bias": bias}
        for i, (kernel, bias) in zip(order, grads, strict=True)
    }


def _mean_square(layers, x, loss_scale):
    activations = forward(layers, x)
    error = activations[-1] - activations[0]
    grads, _ = backward(layers, activations, 2 * loss_scale * error / error.size)
    return loss_scale * (error**2).mean(), grads


def finetune_gradients(params, x, loss_scale=1.0):
    """Loss s·mean (x̂ - x)² of the whole autoencoder, and its gradients."""
    encoder, decoder = encoder_layers(params), decoder_layers(params)
    n = len(encoder)
    loss, grads = _mean_square([*encoder, *decoder], x, loss_scale)
    encoder_grads = _named("encoder", range(n), grads[:n])
    return loss, encoder_grads | _named("decoder", reversed(range(n)), grads[n:])


def layer_gradients(params, layer, x, loss_scale=1.0):
    """Loss of one layer and its inverse on that layer's clean input, and their gradients."""
    encoder, decoder = encoder_layers(params), decoder_layers(params)[::-1]
    h = forward(encoder[:layer], x)[-1]
    loss, grads = _mean_square([encoder[layer], decoder[layer]], h, loss_scale)
    return loss, _named("encoder", [layer], grads[:1]) | _named("decoder", [layer], grads[1:])


def clustering_gradients(params, mu, x, p, alpha=1.0):
    """Mean KL of a batch, and its gradients by the encoder's parameters and the centroids."""
    layers = encoder_layers(params)
    activations = forward(layers, x)
    loss = kl(p, soft_assignment(activations[-1], mu, alpha)).mean()
    grad_z, grad_mu = kl_gradients(activations[-1], mu, p, alpha)
    grads, _ = backward(layers, activations, grad_z / len(x))
    return loss, _named("encoder", range(len(layers)), grads), grad_mu / len(x)


# Caffe's SGD.


def sgd_step(params, grads, learning_rate):
    """One step of plain gradient descent; entries without a gradient stay."""
    if not isinstance(params, dict):
        return params - learning_rate * grads
    return {
        name: sgd_step(leaf, grads[name], learning_rate) if name in grads else leaf
        for name, leaf in params.items()
    }


def caffe_settings(step, learning_rate, decay_every, decay_rate, momentum, warmup_steps):
    """Learning rate and momentum at a step: staircase decay, linear ramp from 0."""
    rate = learning_rate * decay_rate ** (step // decay_every)
    return rate, momentum * min(step / warmup_steps, 1) if warmup_steps else momentum


def caffe_step(value, velocity, grad, rate, momentum):
    """Return value and velocity: v ← m·v + lr·g, w ← w - v."""
    velocity = momentum * velocity + rate * grad
    return value - velocity, velocity


# Spectral baselines: dense matrices, row by row.


def nearest_neighbors(x, n_neighbors):
    """Each row itself, then its nearest other rows."""
    squared = squared_distances(x, x)
    np.fill_diagonal(squared, -1)
    return squared.argsort(axis=1, kind="stable")[:, :n_neighbors]


def sec_matrix(x, n_neighbors, mu, gamma, weights):
    """L + mu (H - Xc (Xc' Xc + gamma I)^-1 Xc')."""
    x = as_float64(x)
    n, d = x.shape
    squared = squared_distances(x, x)
    neighbors = nearest_neighbors(x, n_neighbors + 1)
    sigma = np.sqrt([squared[i, neighbors[i, -1]] for i in range(n)])
    affinity = np.zeros((n, n))
    for i in range(n):
        for j in neighbors[i, 1:]:
            heat = np.exp(-squared[i, j] / (sigma[i] * sigma[j])) if squared[i, j] > 0 else 1
            affinity[i, j] = affinity[j, i] = heat if weights == "heat" else 1
    root = np.diag(affinity.sum(axis=1) ** -0.5)
    centering = np.eye(n) - 1 / n
    xc = centering @ x
    linear = centering - xc @ np.linalg.inv(xc.T @ xc + gamma * np.eye(d)) @ xc.T
    return np.eye(n) - root @ affinity @ root + mu * linear


def ldmgi_matrix(x, n_neighbors, regularization):
    """Sum over the cliques of H (Xc Xc' + lambda I)^-1 H."""
    x = as_float64(x)
    matrix = np.zeros((len(x), len(x)))
    centering = np.eye(n_neighbors) - 1 / n_neighbors
    for clique in nearest_neighbors(x, n_neighbors):
        xc = centering @ x[clique]
        inverse = np.linalg.inv(xc @ xc.T + regularization * np.eye(n_neighbors))
        matrix[np.ix_(clique, clique)] += centering @ inverse @ centering
    return matrix


def spectral_rotation(embedding, max_iter=100):
    """Best partition of Yu & Shi's iterations, started at every row, and its objective."""
    f = as_float64(embedding)
    f = f / np.linalg.norm(f, axis=1, keepdims=True)
    best, best_labels = -1, None
    for first in range(len(f)):
        columns, likeness = [f[first]], np.zeros(len(f))
        while len(columns) < f.shape[1]:
            likeness += abs(f @ columns[-1])
            columns.append(f[likeness.argmin()])
        rotation = np.array(columns).T
        for _ in range(max_iter):
            labels = (f @ rotation).argmax(axis=1)
            u, _, vt = np.linalg.svd(np.eye(f.shape[1])[labels].T @ f)
            rotation = vt.T @ u.T
        objective = (f @ rotation).max(axis=1).sum()
        if objective > best:
            best, best_labels = objective, (f @ rotation).argmax(axis=1)
    return best_labels, best
