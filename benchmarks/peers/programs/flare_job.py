"""Writes FLARE's job, and submits it to its server as its administrator, or simulates it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from learners import Learner
from nvflare.app_common.np.np_model_persistor import NPModelPersistor
from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe
from nvflare.fuel.flare_api.flare_api import new_secure_session
from nvflare.recipe.cyclic import CyclicRecipe
from nvflare.recipe.sim_env import SimEnv

ADMIN = "admin@peers.org"
_ENDLESS = 10_000
_LOOKS_EVERY_S = 0.1
"""How often the server looks whether a visit has ended; FLARE's default is 0.5 s."""


class _Cyclic(CyclicRecipe):
    """A ring of arrays, for which FLARE has no recipe of its own."""

    def _setup_model_and_persistor(self, job: Any) -> str:
        return str(job.to_server(NPModelPersistor(model=self.model), id="persistor"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kit", help="the administrator's kit; without it, simulate")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--algorithm", choices=["fedavg", "cyclic"])
    parser.add_argument("--task")
    parser.add_argument("--progress")
    parser.add_argument("--judge")
    parser.add_argument("--epochs")
    parser.add_argument("--sites", nargs="+")
    parser.add_argument("--least", type=int)
    options = parser.parse_args()
    words = ("task", "progress", "judge", "epochs")
    fresh = np.concatenate([weight.ravel() for weight in Learner(Path(options.task)).fresh()])
    settings: dict[str, Any] = {
        "name": "peers",
        "model": fresh.tolist(),
        "min_clients": options.least,
        "num_rounds": _ENDLESS,
        "train_script": "flare_client.py",
        "train_args": " ".join(f"--{word} {getattr(options, word)}" for word in words),
    }
    if options.algorithm == "cyclic":
        often = {"task_check_period": _LOOKS_EVERY_S}
        recipe: Any = _Cyclic(**settings, server_config_overrides=often)
    else:
        recipe = NumpyFedAvgRecipe(**settings)
    recipe.add_client_file("learners.py")
    if options.kit is None:
        recipe.execute(SimEnv(clients=options.sites, workspace_root=str(options.out)))
        return
    recipe.export(str(options.out))
    session = new_secure_session(ADMIN, options.kit)
    print(session.submit_job(str(options.out / "peers")), flush=True)
    session.close()


if __name__ == "__main__":
    main()
