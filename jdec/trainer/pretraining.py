"""The host loop of pretraining, of a fit and of a batch of members alike."""

from typing import Any

import numpy as np

from jdec._typing import Params
from jdec.trainer.history import Snapshot, chunks
from jdec.trainer.programs import (
    Stage,
    init_params,
    init_stage,
    pretraining_stages,
)
from jdec.trainer.run import (
    NotFiniteError,
    Run,
    Saved,
    check_losses,
    copy,
    mean_losses,
    placed,
    show,
)


def pretrain(
    run: Run, *, rows: tuple[Any, int] | None = None, saved: Saved | None = None
) -> Params:
    """Run all stages of pretraining that are still to do; returns the parameters.

    ``rows`` are those to train on and how many they are, where not the run's. Raises NotFiniteError
    if the loss or a weight of a fit becomes NaN or infinite.
    """
    plan = run.plan
    stages = pretraining_stages(plan.config, plan.network)
    first = 0
    if saved is None:
        params, finite = init_params(run.keys.init, plan=plan, n_features=run.x.shape[1])
        if not np.asarray(finite).any():
            raise NotFiniteError("network: init returned parameters that are NaN or infinite")
    else:
        first = [stage.name for stage in stages].index(saved.phase)
        params = saved.tree.params
    for index in range(first, len(stages)):
        if saved is not None and index == first:
            state, step = copy(placed(run, saved.tree)), saved.step
        else:
            state, step = init_stage(params, plan=plan, stage=stages[index]), 0
            if plan.rows.mesh is not None:
                state = copy(placed(run, state))
        x, n_rows = rows or (run.x, plan.rows.n_rows)
        params = _pretrain_stage(run, stages[index], state, step, x, n_rows)
    return params


def _pretrain_stage(
    run: Run,
    stage: Stage,
    state: Any,
    first_step: int,
    x: Any,
    n_rows: int,
) -> Params:
    plan, reporter = run.plan, run.reporter
    phase = f"pretraining{run.title}, {stage.name}"
    options: Any = {"plan": plan, "stage": stage, "n_rows": n_rows}
    with reporter.bar(phase, stage.n_steps, "step", initial=first_step) as bar:
        for start, n_steps in chunks(stage.n_steps, first_step):
            with reporter.timed("pretraining"):
                state, losses, finite = run.programs.pretrain_steps(
                    run.keys.pretraining, state, x, start, n_steps=n_steps, **options
                )
                losses, finite = np.asarray(losses), np.asarray(finite)
            if run.members is None:
                check_losses(losses, phase, start)
                if not finite:
                    raise NotFiniteError(
                        f"{phase}: the weights became NaN or infinite between steps {start + 1} "
                        f"and {start + n_steps}; lower pretrain.optimizer.learning_rate or scale "
                        "the data"
                    )
            done = start + n_steps
            loss = mean_losses(losses)
            members = {} if run.members is None else {"members": run.members.tolist()}
            record = {"phase": stage.name, "step": done, **members, "loss": loss}
            reporter.report(record, Snapshot(state.params))
            show(bar, loss=loss)
            bar.update(n_steps)
            run.save(stage.name, done, state, {}, done == stage.n_steps)
    return state.params
