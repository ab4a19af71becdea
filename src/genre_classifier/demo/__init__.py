"""The synthetic demo data: rules that compose and render music-like clips, and the table measured from them.

Nothing here is a recording of anyone's music. `python -m genre_classifier.demo.make` makes the shipped files.
"""
