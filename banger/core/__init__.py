"""The pure vocabulary of banger. Standard library only; imports nothing else of ours."""
