import torch

from engine_model import WIDER, trained


def test_weights_are_widened_once_whatever_shares_their_storage():
    layer = torch.nn.Module()
    layer.kv_b_proj = torch.nn.Linear(4, 6, bias=False)
    before = layer.kv_b_proj.weight.detach().clone()
    layer.w_uv = torch.nn.Parameter(layer.kv_b_proj.weight.data.T[:, :3])
    layer.w_copy = torch.nn.Parameter(before.T[:, 3:].clone())
    layer.norm = torch.nn.Parameter(torch.full((4,), 1e-3))
    layer.steps = torch.nn.Parameter(torch.tensor([[3]]), requires_grad=False)

    trained(layer)

    torch.testing.assert_close(layer.kv_b_proj.weight, before * WIDER)
    torch.testing.assert_close(layer.w_uv, before.T[:, :3] * WIDER)
    torch.testing.assert_close(layer.w_copy, before.T[:, 3:] * WIDER)
    torch.testing.assert_close(layer.norm, torch.ones(4))
    assert layer.steps.item() == 3
