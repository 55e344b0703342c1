"""What a packet from outside can be blamed for. Our own misuse is a ValueError instead."""


class StampError(Exception):
    """The far end, or somebody in between, sent what it should not have."""


class MalformedPacket(StampError):  # noqa: N818 - says what came
    """Too short for its kind, a field outside its range, or a TLV that overruns the packet."""


class ForgedPacket(StampError):  # noqa: N818
    """The HMAC, or the echo of what we sent, is wrong."""


class UnexpectedAnswer(StampError):  # noqa: N818
    """Well formed, but nothing waits for it: a duplicate, a replay or somebody else's session."""
