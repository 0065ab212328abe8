"""Evaluations as jobs: ordered, played item by item, journaled, scored. `orders` holds the words, `scoring` the arithmetic."""
