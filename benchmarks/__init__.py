"""Benchmarks of jdec: what is claimed is measured here, and recorded in results/."""
