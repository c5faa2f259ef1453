"""What `stvideo.doctor` tries."""
