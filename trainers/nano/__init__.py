"""Small real models from scratch: no machine needs a download or a GPU to see all of it work.

    phrases ─► tokenizer ─┐
                          ├─► model.create(directory) ─► SFT on a base corpus ─► a base that has practised the parts
    random weights ───────┘

`bases` chooses the corpus: `base_corpus` (cards in words), `card_corpus` (cards in pictures) or `street_corpus` (walks). A
nano model takes the same prompts and the same code path as an 8B model; its tokenizer merely holds the fixed phrases as
single tokens. Start reading at `model.create`, then `base_corpus`.
"""
