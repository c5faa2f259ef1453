"""stvideo: efficient video transformers by semantic tokens and class-attention token reorganization."""
