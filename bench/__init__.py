"""Side-by-side measurements of banger and what people use without it; ``python -m bench.run`` runs them."""
