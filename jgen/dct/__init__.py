"""Images as quantised DCT coefficients, as JPEG has them, and those as sparse sequences."""
