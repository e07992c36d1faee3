"""Where the gateway meets the world: the packet queue, the control socket, time."""
