"""Gradients added in place are autograd's."""

import torch
from torch import nn

from components.modeling.embedding import add_in_place


def test_the_gradient_is_autograds_over_several_backward_passes() -> None:
    torch.manual_seed(0)
    plain = nn.Embedding(20, 4, padding_idx=3)
    lean = nn.Embedding(20, 4, padding_idx=3)
    lean.load_state_dict(plain.state_dict())
    add_in_place(lean)
    ids = torch.tensor([[5, 3, 5], [0, 19, 3]])
    factors = torch.randn(3, 2, 3, 4)
    for update in range(2):
        for factor in factors:
            for embedding in (plain, lean):
                (embedding(ids) * factor).sum().backward()
        assert plain.weight.grad is not None
        assert lean.weight.grad is not None
        assert plain.weight.grad[5].abs().sum() > 0
        torch.testing.assert_close(lean.weight.grad, plain.weight.grad, rtol=1e-6, atol=0.0)
        plain.zero_grad()
        lean.zero_grad(set_to_none=bool(update))


def test_the_gradient_at_the_output_is_there_too() -> None:
    embedding = nn.Embedding(5, 2)
    add_in_place(embedding)
    output = embedding(torch.tensor([[1, 1]]))
    output.retain_grad()
    output.sum().backward()
    assert output.grad is not None
    assert embedding.weight.grad is not None
    assert embedding.weight.grad[1].tolist() == [2.0, 2.0]
