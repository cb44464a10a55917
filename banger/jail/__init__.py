"""The program that is executed in a VMM's place and becomes it, confined.

It runs as a process of its own, with the standard library alone, and starts in some 20 ms: nothing here imports
anything else of ours, and nothing heavy. What it is told is made by ``launch/jail.py``.
"""
