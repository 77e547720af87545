"""The paper's published numbers, as CSV files, and the grids that answer them."""
