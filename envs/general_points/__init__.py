"""GeneralPoints: make a target, mostly 24, from four cards, each used once, with + - * / and parentheses.

An ace is 1. J, Q and K are 10 each under the rule that models train on (`face_cards="ten"`), and 11, 12 and 13 under
the rule they never train on (`"rank"`). The prompt says which. A wrong answer is told what is wrong and may be revised,
`viter` times in all.

With `modality="vision"` the cards are a picture, and an answer that names other cards than lie there is not read on.

    game ─► prompts            the words
      ├──► hands ─► solver     what is dealt, and every solution of it
      ├──► verifier ─► arithmetic
      └──► cards ─► faces ─► courts ─► shapes     the picture; only these load Pillow

Start reading at `game`, then `verifier`.
"""

from envs.general_points.game import GeneralPoints
from envs.general_points.options import GeneralPointsOptions

__all__ = ["GeneralPoints", "GeneralPointsOptions"]
