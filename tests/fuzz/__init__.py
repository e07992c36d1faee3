"""Mutation fuzzing of everything that reads bytes from the network: `./dev fuzz [--seconds N]`."""
