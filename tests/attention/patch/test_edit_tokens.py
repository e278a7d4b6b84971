"""Which tokens of a reference stay."""

import pytest
import torch
from parts2whole.attention.patch.host.edit import kept_tokens, token_side


@pytest.mark.parametrize("size", [(1, 1), (6, 4), (7, 5), (2, 9)])
@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("frames", [1, 3])
def test_the_side_of_a_token_is_told_by_how_many_there_are(size, side, frames):
    count = frames * -(-size[0] // side) * -(-size[1] // side)
    found = token_side(size, count, frames)
    assert [-(-each // found) for each in size] == [-(-each // side) for each in size]


def test_tokens_that_are_no_squares_are_refused():
    with pytest.raises(ValueError, match="A latent of 4x6 became 5 tokens"):
        token_side((6, 4), 5)


def test_a_token_stays_where_any_of_it_shows_something():
    shows = torch.zeros(5, 7, dtype=torch.bool)
    shows[1, 1] = shows[4, 6] = shows[2, 3] = True
    assert kept_tokens(shows, 3 * 4).tolist() == [0, 5, 11], "of a grid of 3x4, the last row and column half filled"
    assert kept_tokens(shows, 5 * 7).tolist() == shows.flatten().nonzero()[:, 0].tolist()
    assert kept_tokens(~shows & False, 12).tolist() == []
