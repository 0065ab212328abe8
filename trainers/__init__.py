"""The learning: what an episode is, how it becomes a gradient, and what is kept of it.

    corpus, episodes ─► packing ─► learner (policy, losses, advantages) ─► checkpoints
                                        ▲ sft, ppo: the loops                  │ storage, manifest
                                                                               └─► runlog, compute

Data        `episode` and its Arrow form `episode_arrow`; `chat` and `corpus` turn messages into token ids, once, and
            `eyes` their images into the tokens and numbers of a model that sees.
Mathematics `advantages`, `losses`, `compute`, `schedule`, `curriculum`: pure functions, numbers in and numbers out.
Learning    `packing`, `rope`, `pretrained`, `policy`, `learner` over `deepspeed_engine`, and the loops `sft` and `ppo`.
Keeping     `run_checkpoints` (the one writer) and `checkpoints` (its readers) over `manifest`, `checkpoint`, `storage`,
            `objectstore` and `disk`; `aliases` name them, `lease` lets one process at a time work, over `claim`;
            `model_safety` and `template_probe` refuse hostile models; `runlog` and `environment` for what people read afterwards.
Nano        `nano/`: small real models and their tokenizer, from scratch.

Knows no Ray actors, vLLM or HTTP. `config`, `episode`, `episode_arrow`, `checkpoints`, `runlog` and `compute` import
without torch. Start reading at `ppo.train`, then `learner`.
"""
