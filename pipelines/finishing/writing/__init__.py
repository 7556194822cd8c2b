"""Files of a finished asset, one format per module: glTF, OBJ, STL, USDZ and FBX."""
