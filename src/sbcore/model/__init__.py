"""The language model: built from a shape or read from a Hugging Face directory."""
