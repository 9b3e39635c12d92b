"""The network: backbone, head, unit embedding, joint classifier."""
