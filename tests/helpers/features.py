"""Features for Fréchet distances that cost nothing, as a file that users write."""

__all__ = ["MEANS_OF_QUARTERS"]

MEANS_OF_QUARTERS = """
import torch

class Means(torch.nn.Module):
    def forward(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images / 255, 2).flatten(1)

def feature_extractor():
    return Means()
"""
