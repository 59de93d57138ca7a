"""The demo's input, made on the spot from a seed: data set, tokenizer, tasks, base model."""
