"""What encoders hear and see of a sound or a video: mel filter banks and uniform clips, in NumPy."""
