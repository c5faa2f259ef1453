"""What `python -m stvideo.benchmark` is made of."""
