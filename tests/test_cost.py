"""What training is said to cost."""

from sciladm.model import Model
from sciladm.tasks import fit_rolled
from sciladm.tasks.cost import _step
from sciladm.tasks.fit_rolled import rolled_steps


def test_a_step_of_the_denoiser_does_not_go_back_through_the_mean(tiny_run):
    model = Model.load(tiny_run)
    for part in (model.denoiser.backbone, model.denoiser.base):
        part.requires_grad_(True)
    assert _step(model) > 0
    assert all(p.grad is None for p in model.denoiser.base.parameters())
    assert any(p.grad is not None for p in model.denoiser.backbone.parameters())


def test_roll_outs_cost_their_windows_and_first_windows_half(tiny_run, monkeypatch):
    recipe = Model.load(tiny_run).recipe
    for name, value in (("ROUNDS", (("alike", 10, 40),)), ("HELD", 5), ("FIRST", 60)):
        monkeypatch.setattr(fit_rolled, name, value)
    windows = 20 * fit_rolled.FREELY + 50
    assert rolled_steps(recipe) == windows * fit_rolled.MEMBERS / recipe.denoiser.batch / 3
    past = recipe.window.model_copy(update={"past": 0})
    assert rolled_steps(recipe.model_copy(update={"window": past})) == 0
