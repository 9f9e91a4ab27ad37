"""Point clouds and meshes: PLY, PCD, OFF, OBJ, STL, glTF, text and NumPy files."""
