"""The progress bar counts evaluations done and expected, and is shown only on request."""

from interpreto import IntegratedGradients, Occlusion
from interpreto.attributions import pipeline


def test_the_bar_knows_what_is_to_come(setting, monkeypatch):
    bars = []

    class Bar(pipeline.tqdm):
        def __init__(self, *given, **options):
            super().__init__(*given, **{**options, "delay": 0, "mininterval": 0})
            bars.append(self)

        def update(self, rows=1):
            seen.append((self.n, self.total))
            return super().update(rows)

    seen = []
    monkeypatch.setattr(pipeline, "tqdm", Bar)
    model, processor, inputs = setting
    outputs = IntegratedGradients(model, processor, n_steps=4, batch_size=2, show_progress=True)(inputs)
    (bar,) = bars
    assert bar.n == bar.total == sum(output.n_evaluations for output in outputs)
    assert all(total >= done for done, total in seen if total is not None)
    # From the first batch on, the total includes the evaluations of all three samples.
    assert seen[1][1] >= 3 * outputs[0].n_evaluations


def test_no_bar_where_none_is_wanted(setting, capsys):
    model, processor, inputs = setting
    Occlusion(model, processor, show_progress=False)(inputs)
    assert capsys.readouterr().err == ""
