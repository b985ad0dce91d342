"""What all packages share: logging, result records and what shows results."""
