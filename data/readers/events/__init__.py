"""Event recordings: AEDAT 4, Prophesee, N-Caltech101 and N-ImageNet files."""
