"""Conversion of any representation to a textured mesh: extract, simplify, unwrap, bake."""
