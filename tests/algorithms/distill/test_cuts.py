"""Cuts show parts of images, as large as they may be."""

import torch

from subpc.algorithms.distill.cuts import cuts

# Each pixel says where it is.
ROWS, COLUMNS = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
IMAGES = torch.stack([ROWS, COLUMNS]).expand(4, 2, 32, 32)


def cut(smallest: float, *, mirror: bool, seed: int = 0) -> torch.Tensor:
    chosen = torch.zeros(64, dtype=torch.int64)
    draw = torch.Generator().manual_seed(seed)
    return cuts(IMAGES, chosen, draw, smallest=smallest, mirror=mirror)


def test_a_cut_has_at_least_its_share_and_lies_inside() -> None:
    found = cut(0.25, mirror=False)
    assert found.shape == (64, 2, 32, 32)
    heights = (found[:, 0, -1, 0] - found[:, 0, 0, 0] + 1) / 32
    widths = (found[:, 1, 0, -1] - found[:, 1, 0, 0] + 1) / 32
    shares = heights * widths
    assert 0.2 < float(shares.min()) < 0.4
    assert 0.9 < float(shares.max()) <= 1.07
    assert float(found.min()) >= 0 and float(found.max()) <= 31
    # A third at most between the sides, but for pixels at the border.
    assert float((heights / widths).max()) < 1.45


def test_the_whole_image_is_itself_or_mirrored() -> None:
    plain = cut(1.0, mirror=False)
    assert float(plain[:, 0, -1, 0].mean()) > 26
    mirrored = cut(1.0, mirror=True)
    falls = mirrored[:, 1, 0, -1] < mirrored[:, 1, 0, 0]
    assert 20 < int(falls.sum()) < 44
    torch.testing.assert_close(mirrored[falls].flip(3), plain[falls], atol=1e-3, rtol=0)


def test_cuts_depend_on_their_draws_alone() -> None:
    assert torch.equal(cut(0.3, mirror=True), cut(0.3, mirror=True))
    assert not torch.equal(cut(0.3, mirror=True), cut(0.3, mirror=True, seed=1))
