"""What `stvideo.doctor` looks at: one module for each kind of thing, every probe a function that returns findings."""
