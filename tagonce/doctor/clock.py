"""The clock of this machine beside those of the servers."""

from tagonce.doctor.finding import Finding, Status

NAME = "clock"
SECONDS = 1.0
"""A difference above is no delay of the network."""
_ADVICE = (
    "Let NTP set the clocks of all machines. In Redis each worker notes by its own clock when it took a chunk, and the "
    "others judge by theirs whether that was too long ago."
)


def finding(skew: float, whose: str, lease_seconds: int) -> Finding:
    """What a difference means.

    Args:
        skew: seconds by which the other clock is ahead.
        whose: in words.
        lease_seconds: workers renew every third of it.
    """
    words = f"this machine and {whose} differ by {abs(skew):.2f} s"
    if abs(skew) < SECONDS:
        return Finding(NAME, Status.OK, words)
    if abs(skew) < lease_seconds / 3:
        return Finding(NAME, Status.WARNING, words, _ADVICE)
    words += (
        f", with leases of {lease_seconds} s: chunks are taken from workers that are at work on them, or far too late"
    )
    return Finding(NAME, Status.FAILED, words, _ADVICE)
