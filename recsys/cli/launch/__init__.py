"""Starting runs on many machines: jobs for SLURM, torchrun on plain hosts (docs/cluster.md)."""
