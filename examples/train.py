"""Train a DDPM on your images.

    python examples/train.py --train_data_dir photos/ --resolution 64 --output_dir model
    accelerate launch examples/train.py --train_data_dir photos/ --mixed_precision bf16

``--help`` lists all options: they are the fields of ``ddpm_pipeline.TrainingConfig``. Run the same
command again after an interruption, and it goes on where it stopped.
"""

import sys

from ddpm_pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
