"""The built-in recipe `causal-lm`: a causal language model that answers medical questions.

Read `recipe` first (the seam), then `settings` (the configuration), `training` and `evaluation`
(what it learns and how it is scored). PyTorch is imported only when work starts.
"""

from __future__ import annotations

from daitn.learning.causal_lm.recipe import CausalLm

__all__ = ["CausalLm"]
