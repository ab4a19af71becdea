"""Forms: a file or a documented refusal, whatever the bytes, and the same in whatever pieces they arrive."""

import logging
import sys

import atheris

with atheris.instrument_imports(include=["genre_classifier.service", "python_multipart"]):
    from genre_classifier.service.upload import RefusedAudioError, Upload, form_field

logging.disable()
SEEDS = [
    b"\x07multipart/form-data; boundary=x\n--x\r\nContent-Disposition: form-data; name=file; "
    b"filename*=utf-8''S%C3%B6ng.mp3\r\nContent-Type: audio/mpeg\r\n\r\nabc\r\n--x--\r\n",
    b'\xffMultipart/Form-Data; boundary="--b"\n----b\r\ncontent-disposition: form-data; name="file"; filename="a.mp3"; '
    b"filename*0*=utf-8''b%20; filename*1=.wav\r\n\r\nab\r\n----b\r\n\r\n\r\n----b--",
]


def mutate(data: bytes, size: int, seed: int) -> bytes:
    """Begin from a real form now and then."""
    return atheris.Mutate(SEEDS[seed % len(SEEDS)] if seed % 16 < 2 else data, size)


def read(content_type: str, body: bytes, size: int) -> object:
    """Return name and content of the file, or the status of the refusal."""
    try:
        with Upload(content_type, (".mp3", ".wav")) as upload:
            for start in range(0, len(body), size):
                upload.write(body[start : start + size])
            upload.finish()
            return upload.name, upload.path.read_bytes()
    except RefusedAudioError as error:
        return error.status


def test_one(data: bytes) -> None:
    """Read one form in pieces of two sizes."""
    size, (content_type, _, body) = data[0] + 1 if data else 1, data[1:].partition(b"\n")
    form_field(body[:300])
    assert read(content_type.decode("latin-1"), body, size) == read(
        content_type.decode("latin-1"), body, 2**16
    )


if __name__ == "__main__":
    atheris.Setup([*sys.argv, "-max_len=2048"], test_one, custom_mutator=mutate)
    atheris.Fuzz()
