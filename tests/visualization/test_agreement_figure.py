from __future__ import annotations

import pytest
import torch

from pplr_lightning.visualization import agreement_figure, caption_of

from .reading import check_readable, images, texts


def masks(figure):
    return [image.get_array() for image in images(figure) if image.get_alpha() == 0.33]


def test_sorts_images_from_the_highest_agreement_to_the_lowest(train, tmp_path):
    torch.manual_seed(0)
    agreement = torch.rand(len(train), 3)
    figure = agreement_figure(train, agreement, when="epoch 3")
    means = [float(mask.mean()) for mask in masks(figure)]
    assert len(means) == 30
    assert means == sorted(means, reverse=True)
    assert means[0] == pytest.approx(float(agreement.mean(1).max()))
    assert means[-1] == pytest.approx(float(agreement.mean(1).min()))
    assert masks(figure)[0].shape == (3, 1)
    assert f"{means[0]:.2f}" in texts(figure)
    assert "agreement" in texts(figure)  # of the colour bar
    assert "all 96 images" in caption_of(figure)
    check_readable(figure, tmp_path)


def test_stripes_lie_over_their_own_image(train):
    agreement = torch.zeros(len(train), 2)
    agreement[7] = torch.tensor([0.9, 0.1])
    figure = agreement_figure(train, agreement)
    picture, mask, edge = images(figure)[:3]
    assert mask.get_extent() == picture.get_extent()
    assert edge.get_alpha() == 1  # undiluted
    assert mask.get_array()[:, 0].tolist() == pytest.approx([0.9, 0.1])


def test_large_sets_are_sampled_and_the_caption_says_so(train):
    many = [train[i % len(train)] for i in range(2001)]
    figure = agreement_figure(many, torch.rand(2001, 1))
    assert "2,000 of 2,001 images, sampled" in caption_of(figure)


def test_nothing_a_single_and_odd_images(train, odd, tmp_path):
    check_readable(agreement_figure([], torch.empty(0, 3)), tmp_path)
    check_readable(agreement_figure(train[:1], torch.zeros(1, 3)), tmp_path)
    check_readable(agreement_figure(odd, torch.rand(len(odd), 3)), tmp_path)
