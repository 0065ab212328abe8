"""V-IRL: follow instructions through the streets of a city, one action at a time.

An action is `forward()`, `turn_direction(x)` or `stop()`. Models train on compass words (`actions="absolute"`) and never on
turns relative to where they look (`"relative"`), nor on other cities. What stands at the present position is told in words,
or shown in a picture of four street views. A correct action moves on and the prompt is written anew; a wrong one is told
what is wrong and may be revised, `viter` times in all at each position.

    navigation ─► prompts                   the words
      ├──► walks ─► rail ─► routes          the oracle's way along a route, and the original's route file
      │      └────► cities                  streets, landmarks and routes of our own
      ├──► verifier
      └──► album ─► streets, panoramas      pictures: drawn, or cut from the user's panoramas

Start reading at `navigation`, then `rail`.
"""

from envs.virl.navigation import Virl
from envs.virl.options import VirlOptions

__all__ = ["Virl", "VirlOptions"]
