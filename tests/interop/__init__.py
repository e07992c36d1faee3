"""The matrix: real phones and registrars, with the gateway, without it, and with the kernel's."""
