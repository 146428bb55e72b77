"""Lists of exit codes, such as ``1,64-78``."""

import re

from queuectl.errors import UsageError

# The word for no rule: "any" code is worth a retry, "none" forbids one. Each word would mean the
# opposite in the other rule.
NO_RULE = {"retry_on": "any", "no_retry_on": "none"}
_PART = re.compile(r"([0-9]{1,3})(?:-([0-9]{1,3}))?")


def check_codes(text: str, rule: str) -> str:
    """Return a list of codes without spaces, or the word for no rule. Raises: UsageError."""
    parts = (part.split("-") for part in text.strip().lower().split(","))
    compact = ",".join("-".join(map(str.strip, part)) for part in parts)
    if compact != NO_RULE[rule]:
        for part in compact.split(","):
            match = _PART.fullmatch(part)
            if not match or not 1 <= int(match[1]) <= int(match[2] or match[1]) <= 255:
                raise UsageError(
                    "must be exit codes from 1 to 255 and ranges of them, such as 1,64-78,"
                    f" or {NO_RULE[rule]}"
                )
    return compact


def includes(codes: str, code: int) -> bool:
    """Return whether a checked list includes a code."""
    for part in codes.split(","):
        first, _, last = part.partition("-")
        if int(first) <= code <= int(last or first):
            return True
    return False
