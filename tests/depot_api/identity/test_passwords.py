"""Password hashes, and the one that nobody has."""

from depot_api.identity.passwords import NOBODY, hash_password, password_matches


def test_a_password_matches_its_own_hash_only() -> None:
    stored = hash_password("correct horse battery")
    assert password_matches("correct horse battery", stored)
    assert not password_matches("correct horse batterY", stored)


def test_the_hash_that_nobody_has_costs_what_a_real_one_does() -> None:
    """The same algorithm and parameters, a salt and a hash of the same lengths."""
    real = hash_password("correct horse battery").split("$")
    made_up = NOBODY.split("$")
    assert made_up[:-2] == real[:-2]
    assert [len(part) for part in made_up] == [len(part) for part in real]
    assert not password_matches("nobody", None)
