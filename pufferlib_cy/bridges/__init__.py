"""Out again: environments of this package as other libraries know them.

Each bridge is a module that imports its library, so that nobody needs the others: `gymnasium`
(vector environments, and native environments by id), `pettingzoo` (the extra ``pettingzoo``) and
`sb3` (the extra ``sb3``). Importing ``pufferlib_cy`` loads none of them: it only puts the ids of
the native environments into Gymnasium's registry.
"""

import gymnasium

from pufferlib_cy import envs

NAMESPACE = "pufferlib_cy"


def register() -> None:
    """Register every native environment with Gymnasium, as ``pufferlib_cy/<Class>-v0``."""
    for name, (_, kind) in envs.REGISTRY.items():
        env_id = f"{NAMESPACE}/{kind}-v0"
        if env_id not in gymnasium.registry:
            gymnasium.register(
                env_id, entry_point="pufferlib_cy.bridges.gymnasium:NativeGymnasiumEnv",
                vector_entry_point="pufferlib_cy.bridges.gymnasium:make_native_vec",
                kwargs={"env": name})
