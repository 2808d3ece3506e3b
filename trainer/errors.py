"""What ends a round."""


class GateRefused(Exception):
    """The candidate may not serve; the version it came from goes on serving."""


class WrongVersion(Exception):
    """The service no longer serves the version that this round started from."""
