"""Does a song keep its genre when its sound is changed?

`changes` says what is done to the sound, `check` measures and predicts it, `table` says what came out.
"""
