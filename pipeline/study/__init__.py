"""Ablation studies: run variants with several seeds and compare them."""
