"""Which prefix a score belongs to, and how many are remembered."""

from vllm_prm.score_cache import ScoreCache, prefix_keys


def test_prefix_keys_depend_on_the_whole_prefix_and_nothing_after():
    first = list(prefix_keys([1, 2, 3, 4], [1, 3]))
    assert first[0] == next(prefix_keys([1, 2, 9], [1]))
    assert first[1] != list(prefix_keys([9, 2, 3, 4], [1, 3]))[1]
    # What lies between the positions counts, not where the positions are.
    assert first[1] == next(prefix_keys([1, 2, 3, 4], [3]))


def test_cache_is_bounded_and_forgets_the_least_recently_used():
    cache = ScoreCache(2)
    cache.put(b"a", (1.0,), 0)
    cache.put(b"b", (2.0,), 0)
    assert cache.get(b"a") == (1.0,)
    cache.put(b"c", (3.0,), 0)
    assert cache.get(b"b") is None and cache.get(b"a") == (1.0,) and len(cache) == 2


def test_cache_refuses_rows_of_old_weights():
    cache = ScoreCache(2)
    cache.clear()
    cache.put(b"a", (1.0,), 0)
    assert cache.get(b"a") is None
