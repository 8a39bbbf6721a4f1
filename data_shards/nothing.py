"""The words for nothing, in tables and in the reports that programs put together of them."""

from __future__ import annotations

# Of pandas, R, SQL, Excel, JavaScript, C and people, whatever the case; \N is MySQL's.
NOTHING = frozenset(
    (
        *("", "nan", "-nan", "none", "null", "(null)", "[null]", "<null>", "undefined", "nat"),
        *("na", "n/a", "n.a.", "<na>", "#na", "#n/a", "#n/a n/a", "\\n"),
        *("missing", "not available", "no report", "no report available", "report not available"),
        *("pd.na", "pd.nat", "np.nan", "nonetype"),
        *("1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"),
        *("#null!", "#value!", "#ref!", "#name?", "#num!", "#div/0!"),
    )
)
_LONGEST_WORD = max(map(len, NOTHING))


def says_nothing(text: str) -> bool:
    """Whether `text`, without blanks around it, is empty or such a word."""
    return len(text) <= _LONGEST_WORD and text.casefold() in NOTHING
