"""Training: all of the package that imports torch.

`load_config` gathers the settings of an environment, `train` runs PPO with them, `evaluate` plays
episodes with the policy, and `checkpoint` saves and loads it.
"""

try:
    from pufferlib_cy.train import checkpoint
    from pufferlib_cy.train.checkpoint import CheckpointError
    from pufferlib_cy.train.config import ConfigError, TrainConfig, load_config
    from pufferlib_cy.train.evaluate import EvalSummary, Spread, evaluate, random_policy
    from pufferlib_cy.train.policies import MLP, Policy
    from pufferlib_cy.train.ppo import NonFiniteError, TrainSummary, train
    from pufferlib_cy.train.report import Observer, Report
except ModuleNotFoundError as error:
    if error.name not in ("torch", "safetensors", "psutil", "tomli"):
        raise
    raise ImportError(f"training needs {error.name} and a few more packages: "
                      'pip install "pufferlib_cy[train]"') from error

__all__ = [
    "MLP", "CheckpointError", "ConfigError", "EvalSummary", "NonFiniteError", "Observer", "Policy",
    "Report", "Spread", "TrainConfig", "TrainSummary", "checkpoint", "evaluate", "load_config",
    "random_policy", "train",
]
