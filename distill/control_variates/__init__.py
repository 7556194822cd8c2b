"""Zero-mean control variates and their coefficients."""
