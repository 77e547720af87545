"""Class-balanced losses: functional, and the module that holds their weights."""
