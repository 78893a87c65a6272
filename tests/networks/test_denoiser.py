"""Networks of every kind behind one call."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from ddpm_pipeline.networks.denoiser import device_of, evaluating, run_denoiser

if TYPE_CHECKING:
    from collections.abc import Callable

X_T, T = torch.randn(3, 2, 4, 4), torch.tensor([0, 5, 9])


class Half(nn.Module):
    """A module of half precision, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 1, dtype=torch.bfloat16)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x_t: Tensor, _: Tensor) -> Tensor:
        assert x_t.dtype == torch.bfloat16
        return self.dropout(self.layer(x_t))


def test_tensors_and_objects_with_a_sample_are_alike() -> None:
    plain = run_denoiser(lambda x_t, t: x_t * t.reshape(-1, 1, 1, 1), X_T, T)
    wrapped = run_denoiser(
        lambda x_t, t: SimpleNamespace(sample=x_t * t.reshape(-1, 1, 1, 1)), X_T, T
    )
    assert torch.equal(plain, wrapped)


def test_a_diffusers_model_is_called_as_it_is(tiny_unet: Callable) -> None:
    unet, x_t = tiny_unet(num_class_embeds=4), torch.randn(3, 1, 8, 8)
    labels = torch.tensor([1, 0, 3])
    with torch.no_grad():
        expected = unet(x_t, T, labels).sample
        assert torch.equal(run_denoiser(unet, x_t, T, labels), expected)
    assert device_of(unet, torch.device("meta")).type == "cpu"


def test_a_model_with_classes_needs_labels(tiny_unet: Callable) -> None:
    unet, x_t, t = tiny_unet(num_class_embeds=3), torch.randn(2, 1, 8, 8), torch.tensor([3, 5])
    assert run_denoiser(unet, x_t, t, torch.tensor([0, 2])).shape == x_t.shape
    with pytest.raises(ValueError, match="class_labels must be given, one for each image"):
        run_denoiser(unet, x_t, t)


def test_a_half_precision_model_gets_its_own_dtype_and_answers_in_that_of_x_t() -> None:
    says_so, seen = Half(), []
    says_so.dtype = torch.bfloat16
    for model in (Half(), says_so):
        assert run_denoiser(model, X_T, T).dtype == torch.float32
    run_denoiser(lambda x_t, _: seen.append(x_t.dtype) or x_t, X_T.double(), T)
    assert seen == [torch.float64]  # a function says nothing of its precision


def test_more_channels_are_allowed_and_other_shapes_are_not() -> None:
    assert run_denoiser(lambda x_t, _: x_t.repeat(1, 2, 1, 1), X_T, T).shape == (3, 4, 4, 4)
    for wrong in (X_T[:2], X_T[:, :, :3], X_T.flatten(1)):
        with pytest.raises(ValueError, match=r"the shape of x_t, \(3, 2, 4, 4\), but for the cha"):
            run_denoiser(lambda *_, wrong=wrong: wrong, X_T, T)
    with pytest.raises(TypeError, match="a tensor or an object with one as `sample`, got list"):
        run_denoiser(lambda *_: [X_T], X_T, T)


def test_dropout_and_gradients_are_off_for_a_while_and_no_longer() -> None:
    model = Half().train()
    model.layer.eval()
    with evaluating(model):
        assert not model.dropout.training
        assert torch.equal(run_denoiser(model, X_T, T), run_denoiser(model, X_T, T))
        assert not run_denoiser(model, X_T, T).requires_grad
    assert model.training
    assert model.dropout.training
    assert not model.layer.training  # as it was
    with pytest.raises(ZeroDivisionError), evaluating(model):
        _ = 1 / 0
    assert model.training
    with evaluating(lambda x_t, _: x_t):
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_a_function_lives_where_the_data_do() -> None:
    assert device_of(lambda x_t, _: x_t, torch.device("meta")).type == "meta"
    assert device_of(nn.Identity(), torch.device("meta")).type == "meta"
