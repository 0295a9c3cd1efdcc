"""Planets: floating-point numbers in lists, attributes and loops. usage: nbody.py STEPS"""
import sys

BODIES = [  # position, velocity, mass: a sun and four that circle it
    [[0.0, 0.0, 0.0], [0.0, -0.03, 0.0], 39.5],
    [[4.8, -1.2, -0.1], [0.6, 2.8, -0.02], 0.038],
    [[8.3, 4.1, -0.4], [-1.0, 1.8, 0.008], 0.011],
    [[12.9, -15.1, -0.2], [1.1, 0.9, -0.01], 0.0017],
    [[15.4, -25.9, 0.2], [1.0, 0.6, -0.03], 0.002],
]


def advance(bodies, pairs, dt, steps):
    for _ in range(steps):
        for (p, v, m), (q, w, n) in pairs:
            x, y, z = p[0] - q[0], p[1] - q[1], p[2] - q[2]
            force = dt * (x * x + y * y + z * z) ** -1.5
            mine, other = n * force, m * force
            v[0] -= x * mine
            v[1] -= y * mine
            v[2] -= z * mine
            w[0] += x * other
            w[1] += y * other
            w[2] += z * other
        for p, v, _ in bodies:
            p[0] += dt * v[0]
            p[1] += dt * v[1]
            p[2] += dt * v[2]


def main():
    pairs = [(a, b) for i, a in enumerate(BODIES) for b in BODIES[i + 1:]]
    advance(BODIES, pairs, 0.001, int(sys.argv[1]))
    for p, v, _ in BODIES:
        print(" ".join(f"{c:.9f}" for c in p + v))


main()
