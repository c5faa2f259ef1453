"""Train a video transformer.

    python -m stvideo.train configs/demo.yaml                              one process
    accelerate launch -m stvideo.train configs/k400_stvit.yaml             all GPUs, as `accelerate config` says
    torchrun --nproc_per_node 8 -m stvideo.train configs/k400_stvit.yaml   the same without Accelerate's launcher

Any setting of the file can be changed on the command line, for instance

    data.root=/data/k400 data.batch_size=4 train.lr=1e-4 output=runs/mine
    model.reduction.evit.keep_rate=0.5          options of a token reduction
    init=timm:vit_base_patch16_224.augreg_in21k start from ImageNet weights
    init=runs/dense                             start from the weights of another run
    resume=auto|PATH|never                      continue this run (auto, the default), another one, or start afresh
    plugins=[my_methods]                        import my_methods.py first: reductions and models of your own

The same command started again continues from the last checkpoint. Results go to the folder `output`:
config.yaml, environment.json, log.jsonl, trackers/, checkpoints/, and the links `last` and `best`.
"""

from __future__ import annotations

from stvideo.data.loading.fork_server import start_fork_server
from stvideo.settings import cli
from stvideo.settings.config import load_config


def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns its exit status."""
    positional, overrides = cli.split_arguments(argv, __doc__ or "")
    config = load_config(cli.one_config(positional, "train"), overrides)
    if config.data.workers:
        start_fork_server()
    from stvideo.training.run import train  # not above: a loader worker that is not forked imports this file

    return train(config)


if __name__ == "__main__":
    cli.run(main)
