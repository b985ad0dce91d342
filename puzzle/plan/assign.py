"""The largest-weight assignment of rows to columns (Hungarian method, with potentials)."""

import numpy as np
from numpy.typing import NDArray


def best_assignment(weights: NDArray[np.float64]) -> list[int]:
    """Return for each row its column, so that the sum of a square matrix's weights is largest.

    The shortest augmenting path form of the Hungarian method (Jonker and Volgenant 1987), O(n^3).
    """
    cost = weights.max(initial=0.0) - weights
    n = len(cost)
    above, left = np.zeros(n + 1), np.zeros(n + 1)
    row_of = np.full(n + 1, -1)  # column -> row; column n is where each search starts
    for row in range(n):
        row_of[n] = row
        column, before = n, np.full(n, n)
        shortest, visited = np.full(n, np.inf), np.zeros(n + 1, dtype=bool)
        while row_of[column] >= 0:
            visited[column] = True
            current = int(row_of[column])
            reduced = cost[current] - above[current] - left[:n]
            better = ~visited[:n] & (reduced < shortest)
            shortest[better], before[better] = reduced[better], column
            free = np.where(visited[:n], np.inf, shortest)
            nearest = int(free.argmin())
            step = float(free[nearest])
            above[row_of[visited]] += step
            left[visited] -= step
            shortest[~visited[:n]] -= step
            column = nearest
        while column != n:
            row_of[column] = row_of[before[column]]
            column = int(before[column])
    found = [0] * n
    for column in range(n):
        found[int(row_of[column])] = column
    return found
