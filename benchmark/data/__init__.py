"""Data sets: the catalogue, their formats, downloading and verifying them."""
