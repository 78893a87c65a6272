"""What a run keeps, on disk and on the Hub.

``RunSaver`` saves its parts and restores them; ``RunFolder`` is where they lie, ``RunIdentity``
says who may go on from them, and ``BackgroundPush`` brings them to the Hub.
"""
