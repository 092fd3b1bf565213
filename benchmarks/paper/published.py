"""Numbers published in the paper. Accuracy in percent.

Source: Xie, Girshick & Farhadi, ICML 2016, Tables 2-4. Table 2's are the best of nine
hyper-parameters.
"""

from collections.abc import Mapping

#: Table 2: method to accuracy by data set. STL-HOG is ``stl10`` here.
TABLE2: Mapping[str, Mapping[str, float]] = {
    "k-means": {"mnist": 53.49, "stl10": 28.39, "reuters10k": 52.42, "reuters": 53.29},
    "LDMGI": {"mnist": 84.09, "stl10": 33.08, "reuters10k": 43.84},
    "SEC": {"mnist": 80.37, "stl10": 30.75, "reuters10k": 60.08},
    "DEC, encoder frozen": {
        "mnist": 79.82,
        "stl10": 34.06,
        "reuters10k": 70.05,
        "reuters": 69.62,
    },
    "DEC": {"mnist": 84.30, "stl10": 35.90, "reuters10k": 72.17, "reuters": 75.63},
}

#: Table 3: every method on the embedding of the autoencoder.
TABLE3: Mapping[str, Mapping[str, float]] = {
    "AE + k-means": {"mnist": 81.84, "stl10": 33.92, "reuters10k": 66.59, "reuters": 71.97},
    "AE + LDMGI": {"mnist": 83.98, "stl10": 32.04, "reuters10k": 42.92},
    "AE + SEC": {"mnist": 81.56, "stl10": 32.29, "reuters10k": 61.86},
    "DEC": TABLE2["DEC"],
}

#: Table 4: method to accuracy by min retention rate, on MNIST.
TABLE4: Mapping[str, Mapping[float, float]] = {
    "k-means": {0.1: 47.14, 0.3: 49.93, 0.5: 53.65, 0.7: 54.16, 0.9: 54.39},
    "AE + k-means": {0.1: 66.82, 0.3: 74.91, 0.5: 77.93, 0.7: 80.04, 0.9: 81.31},
    "DEC": {0.1: 70.10, 0.3: 80.92, 0.5: 82.68, 0.7: 84.69, 0.9: 85.41},
}
