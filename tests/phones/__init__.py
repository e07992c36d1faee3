"""Real user agents, each in a network namespace of its own, behind one set of verbs."""
