"""What training is said to cost."""

from sciladm.model import Model
from sciladm.tasks.cost import _step


def test_a_step_of_the_denoiser_does_not_go_back_through_the_mean(tiny_run):
    model = Model.load(tiny_run)
    for part in (model.denoiser.backbone, model.denoiser.base):
        part.requires_grad_(True)
    assert _step(model) > 0
    assert all(p.grad is None for p in model.denoiser.base.parameters())
    assert any(p.grad is not None for p in model.denoiser.backbone.parameters())
