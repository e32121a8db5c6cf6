"""Trainers of others beside lorajob: their rows and settings, their programs, and the table. Nothing else of bench/."""
