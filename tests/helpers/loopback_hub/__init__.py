"""A small Hub on loopback that the real huggingface_hub client pushes to and pulls from.

    python -m helpers.loopback_hub PORT FOLDER    prints its port; PORT 0 takes a free one

Standard library, and PyYAML as huggingface_hub brings it. Repositories with commits, branches,
tags, pull requests, private repositories, LFS and xet; the tokens are in ``store.TOKENS``. It
answers as the Hub does where huggingface_hub 2.4 and diffusers 0.42 look at the answer. A test
controls it under ``/_test/`` (``control.py``), which is also where faults are asked for.
"""
