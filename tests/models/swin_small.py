"""Small Swin-like models whose every weight is random, zero-initialised ones too, and the same every time."""

import torch

import stvideo

TINY = dict(embed_dim=12, depths=(2, 2, 2, 2), num_heads=(1, 2, 3, 4), num_classes=7)


def shake(model: torch.nn.Module, amount: float = 0.1) -> torch.nn.Module:
    """Move every weight, batch norm's statistics too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator))
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.add_(amount * torch.randn(module.running_mean.shape, generator=generator))
                module.running_var.add_(amount * torch.rand(module.running_var.shape, generator=generator))
    return model.eval()


def small(name: str, **options) -> torch.nn.Module:
    """A model of a few thousand weights."""
    torch.manual_seed(0)
    return shake(stvideo.create_model(name, **{**TINY, **options}))


def gradients(model: torch.nn.Module, clip: torch.Tensor, checkpointing: bool) -> torch.Tensor:
    """All gradients of the squared logits in training mode; every parameter must have one that is not all zero."""
    model.train()
    model.set_grad_checkpointing(checkpointing)
    for parameter in model.parameters():
        parameter.grad = None
    model(clip).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    return torch.cat([p.grad.flatten() for p in model.parameters()])
