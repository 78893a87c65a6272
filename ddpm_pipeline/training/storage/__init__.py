"""What a run keeps on disk and on the Hub: its identity, checkpoints, record and model."""
