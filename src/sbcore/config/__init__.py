"""The configuration: its schema, its reading, and what each stage reads of it."""
