"""The lab in containers: docker/compose.yaml brought up, called through, and taken down."""
