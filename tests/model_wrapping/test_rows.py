"""`Rows`: slicing, joining, and lazy blends."""

import pytest
import torch

from interpreto.model_wrapping.rows import LazyBlend, Rows

HERE, THERE = torch.arange(12.0).reshape(1, 3, 2, 2), torch.full((1, 3, 2, 2), -1.0)
MASKS = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.25]])


def halves(masks):
    """Masks of the left and right half, expanded to pixels."""
    return masks[:, None, None, :].expand(-1, 1, 2, -1)


def blended(masks=MASKS):
    return Rows({}, {}, {"pixels": LazyBlend(HERE, THERE, masks, halves)})


def by_hand(mask):
    share = mask.reshape(1, 1, 2)
    return HERE[0] * (1 - share) + THERE[0] * share


def test_blended_rows_are_what_each_mask_says():
    rows = blended()
    assert len(rows) == 4
    assert rows.shape == (("pixels", (3, 2, 2)),)
    made = Rows.join([rows])
    assert not made.blends
    for row, mask in zip(made.fields["pixels"], MASKS, strict=True):
        assert torch.allclose(row, by_hand(mask))


def test_one_mask_may_serve_slices_of_rows():
    lines = LazyBlend(HERE, THERE, MASKS, lambda masks: masks[:, None, None, None, :], (3, 1, 2, 2))
    cut = Rows({}, {}, {"pixels": lines})
    assert cut.shape == blended().shape
    assert torch.equal(Rows.join([cut]).fields["pixels"], Rows.join([blended()]).fields["pixels"])
    assert torch.equal(Rows.join([cut.take(slice(2))]).fields["pixels"], Rows.join([blended()]).fields["pixels"][:2])


@pytest.mark.parametrize("chosen", [slice(1, 3), torch.tensor([3, 0])])
def test_slices_are_those_rows(chosen):
    some = blended().take(chosen)
    assert torch.equal(Rows.join([some]).fields["pixels"], Rows.join([blended()]).fields["pixels"][chosen])


def test_blends_and_materialized_rows_are_joined_in_order():
    made = Rows({"pixels": torch.rand(2, 3, 2, 2)})
    assert made.shape == blended().shape
    whole = Rows.join([blended(MASKS[:1]), made, blended(MASKS[1:])], torch.device("cpu")).fields["pixels"]
    assert len(whole) == 6
    assert torch.equal(whole[1:3], made.fields["pixels"])
    assert torch.equal(whole[[0, 3, 4, 5]], Rows.join([blended()]).fields["pixels"])


def test_lazy_blends_take_the_memory_of_their_masks():
    assert blended().nbytes == MASKS.nbytes
    assert Rows.join([blended()]).nbytes == 4 * HERE.nbytes


def test_blends_and_tensors_can_be_mixed_and_replaced():
    rows = Rows({"size": torch.ones(4, 2)}).replace(pixels=LazyBlend(HERE, THERE, MASKS, halves))
    assert len(rows) == 4
    assert rows.to(torch.device("cpu")).fields.keys() == {"size", "pixels"}
    replaced = rows.replace(pixels=torch.zeros(4, 3, 2, 2))
    assert not replaced.blends
    assert replaced.fields.keys() == {"size", "pixels"}
