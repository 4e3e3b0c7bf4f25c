"""What a path in the depot may be. The schema holds the same rules, here they have words.

Those of every path are in the domain `depot_path`, and those of new ones in a trigger on assets.
"""

import re
import unicodedata

MAX_PATH_BYTES = 1024  # what common file systems and Windows' long paths can carry below a workspace's root
MAX_SEGMENT_BYTES = 255  # what common file systems take as one name
WORKSPACE_STATE = ".depot"  # the client's own directory in a workspace

_DEVICE = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3]) *(\..*)?", re.IGNORECASE | re.ASCII
)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|\ud800-\udfff]')


def path_key(path: str) -> str:
    """What makes two paths the same: they would be one file where case or Unicode form is not told apart."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def broken_rule(path: str, *, is_new: bool = True) -> str | None:
    """The rule that `path` breaks, in words, or None. One that is not new may have been there before some of them."""
    if _FORBIDDEN.search(path):
        return 'holds a character that Windows or macOS cannot store: a control character or one of \\ : * ? " < > |'
    if not 1 <= len(path.encode()) <= MAX_PATH_BYTES:
        return f"must have 1 to {MAX_PATH_BYTES} bytes in UTF-8"
    if path.startswith("/"):
        return "must be relative to the project, without a leading /"
    rules = (_broken_segment_rule, _broken_new_segment_rule) if is_new else (_broken_segment_rule,)
    return next((rule for segment in path.split("/") for broken in rules if (rule := broken(segment))), None)


def _broken_segment_rule(segment: str) -> str | None:
    if segment in ("", ".", ".."):
        return f"must not hold {segment!r} as a segment, as with // or a / at the end"
    if segment.endswith((".", " ")):
        return f"has a segment that ends in a dot or a space, which Windows drops: {segment!r}"
    return None


def _broken_new_segment_rule(segment: str) -> str | None:
    if len(segment.encode()) > MAX_SEGMENT_BYTES:
        return f"has a segment of more than {MAX_SEGMENT_BYTES} bytes in UTF-8"
    if segment.casefold() == WORKSPACE_STATE:
        return f"has a segment {segment!r}, where a workspace keeps its state"
    if _DEVICE.fullmatch(segment):
        return f"has a segment that is a device name on Windows: {segment!r}"
    return None
