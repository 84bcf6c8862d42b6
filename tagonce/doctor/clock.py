"""Clock differences between this machine and the servers."""

from tagonce.doctor.finding import Finding, Status

NAME = "clock"
SECONDS = 1.0
"""A larger difference is not a network delay."""
_ADVICE = (
    "Synchronize the clocks of all machines with NTP. Each worker writes by its own clock when it took a chunk, and "
    "other workers compare that with theirs."
)


def finding(skew: float, whose: str, lease_seconds: int) -> Finding:
    """Rate a clock difference.

    Args:
        skew: seconds by which the other clock is ahead.
        whose: name of the other clock.
        lease_seconds: workers renew leases every third of it.
    """
    words = f"this machine and {whose} differ by {abs(skew):.2f} s"
    if abs(skew) < SECONDS:
        return Finding(NAME, Status.OK, words)
    if abs(skew) < lease_seconds / 3:
        return Finding(NAME, Status.WARNING, words, _ADVICE)
    words += (
        f", with leases of {lease_seconds} s: chunks may be taken from workers that still process them, or far too late"
    )
    return Finding(NAME, Status.FAILED, words, _ADVICE)
