import gc

import pytest

from genre_classifier.machine.imports import importing


def test_garbage_collection_pauses_and_goes_on_as_before() -> None:
    assert gc.isenabled()
    frozen = gc.get_freeze_count()
    with importing():
        assert not gc.isenabled()
        library = [[] for _ in range(100)]  # stands for what an import makes
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen + len(library)
    gc.unfreeze()
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()


def test_a_failed_import_leaves_garbage_collection_on() -> None:
    with pytest.raises(ModuleNotFoundError), importing():
        import no_such_library  # noqa: F401
    assert gc.isenabled()
