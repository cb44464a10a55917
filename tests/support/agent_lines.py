"""What a guest may say instead of the lines that it should say."""

from __future__ import annotations

from hypothesis import strategies as st


def lines_like(text: bytes) -> st.SearchStrategy[bytes]:
    """Lines of ``text``, its words before anything, and anything; ``text`` is what a right guest says."""
    line = st.one_of(
        st.sampled_from(text.splitlines()),
        st.tuples(st.sampled_from(text.split()), st.binary(max_size=30)).map(b" ".join),
        st.binary(max_size=60),
    )
    return st.lists(line, max_size=30).map(b"\n".join)
