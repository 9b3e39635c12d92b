"""The method: pixels to segments, relations between them, the contrastive loss. torch and records only."""
