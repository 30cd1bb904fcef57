"""Training anew on all movies once it is known how good a model is."""

import numpy as np
import pytest
import torch

from lobbycard.errors import InputError
from lobbycard.poster import checkpoint
from lobbycard.poster.artifact import open_model
from lobbycard.poster.comparison import compare_models, open_models
from lobbycard.poster.evaluation import evaluate_model, sides
from lobbycard.poster.inference import frozen_forward, network_outputs, without_head
from lobbycard.poster.network import head
from lobbycard.poster.predictor import PosterPredictor
from lobbycard.poster.probe import fit_head

from .test_training import same, trainer_of, weights

pytestmark = pytest.mark.filterwarnings("ignore")


def run(drawn, out, **settings):
    trainer = trainer_of(drawn, out, refit=True, **settings)
    trainer.run()
    return trainer


@pytest.fixture(scope="module")
def refitted(drawn, tmp_path_factory):
    return run(drawn, tmp_path_factory.mktemp("refit") / "m", strategy="cached", soup=2)


def test_what_goes_out_has_learnt_from_all_movies_and_has_the_figures_of_the_one_before(refitted, drawn):
    out, before = refitted.config.out, weights(refitted)
    folder = open_model(out)
    assert not same(before, {k: v.float() for k, v in refitted.refitted.state_dict().items()})
    assert folder.about["metrics"] == refitted.measured.metrics and folder.about["data"]["refit"] is True
    assert folder.about["weights_of"] == f"{refitted.chosen}; then trained anew on all movies"
    predictor, paths = PosterPredictor(folder, "onnx"), list(refitted.data.frame["path"][:6])
    with torch.inference_mode():
        from lobbycard.catalog.batches import batches, normalize

        (batch,) = batches(paths, refitted.size, 6)
        pixels = torch.from_numpy(normalize(batch.pixels, refitted.mean, refitted.std))
        logits = refitted.refitted.eval()(pixels).numpy()
    expected = 1 / (1 + np.exp(-refitted.measured.calibration.apply(logits)))
    assert np.abs(predictor.predict_proba(paths) - expected).max() < 1e-4
    assert PosterPredictor.load(out, precision="fast").precision in ("int8", "bf16")  # its own int8, checked
    page = (out / "report.html").read_text(encoding="utf-8")
    for words in ("then trained anew on all movies", f"settings, on all {len(refitted.data.frame):,} movies"):
        assert words in page
    assert "nothing can be measured on those movies any more" in (out / "README.md").read_text(encoding="utf-8")
    left = {path.name for path in refitted.checkpoints.iterdir()}
    assert left == {"best_model.pth", "history.csv", "split.csv"}


def test_nothing_can_be_measured_on_what_it_has_learnt_from(refitted, trained, drawn):
    found = sides(refitted.folder)
    assert len(found["train"]) == len(refitted.data.frame) and not found["valid"]
    said = []
    table, images = drawn / "MovieGenre.csv", drawn / "images"
    evaluated = evaluate_model(PosterPredictor(refitted.folder, "onnx"), table, images, say=said.append)
    assert evaluated["trained_on"] == evaluated["n"] and any("were trained on" in text for text in said)
    models = open_models([trained.config.out, refitted.config.out])
    with pytest.raises(InputError, match="a model was trained on each of the"):
        compare_models(models, table, images, say=said.append)


def test_interrupted_it_goes_on_and_ends_in_the_same_bits(refitted, drawn, tmp_path, monkeypatch):
    ended = []

    def stop_in_the_refit(self, row):
        if not self.measured:
            ended.append(row["epoch"])
            if len(ended) == 3:
                raise KeyboardInterrupt
        return measured(self, row)

    measured = checkpoint.Checkpoint._add
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(checkpoint.Checkpoint, "_add", stop_in_the_refit)
        run(drawn, tmp_path / "m", strategy="cached", soup=2)
    assert not (tmp_path / "m" / "model.json").exists()
    said = []
    resumed = run(drawn, tmp_path / "m", strategy="cached", soup=2, resume=True, say=said.append)
    assert any("resuming after 2 finished epochs" in text for text in said)
    states = [{k: v.float() for k, v in trainer.refitted.state_dict().items()} for trainer in (resumed, refitted)]
    assert same(*states)
    assert not any("mAP" in text for text in said[said.index("\ntraining anew on all 235 movies") :][:6])


def test_a_probe_is_fitted_anew_on_the_features_of_all(drawn, tmp_path):
    trainer = run(drawn, tmp_path / "m", strategy="probe")
    data = trainer.data
    with without_head(trainer.network) as body:
        forward = frozen_forward(body, (3, *trainer.size), trainer.device)
        paths = list(data.frame["path"])
        features = network_outputs(forward, paths, trainer.size, trainer.mean, trainer.std, mirrored=True)
    matrix, bias = fit_head(features, data.truth, data.frame["group"].to_numpy(), trainer.config.seed)
    layer = head(trainer.refitted)
    assert np.allclose(layer.weight.detach().numpy(), matrix, atol=1e-3)
    assert np.allclose(layer.bias.detach().numpy(), bias, atol=1e-3)


def test_all_layers_are_trained_anew_by_the_last_epoch_and_divergence_is_told(drawn, tmp_path):
    trainer = run(drawn, tmp_path / "m", strategy="standard")
    assert not same(weights(trainer), {k: v.float() for k, v in trainer.refitted.state_dict().items()})

    cancel = checkpoint.Checkpoint.before_validate

    def explodes(self):
        if not self.measured and self.epoch == 1:
            with torch.no_grad():
                next(iter(self.learn.model.parameters())).mul_(float("nan"))
        cancel(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoint.Checkpoint, "before_validate", explodes)
        with pytest.raises(InputError, match="training diverged"):
            run(drawn, tmp_path / "n", strategy="standard")
