"""A form with a file, read as it arrives: of the file nothing is held, of the other fields little."""

from collections.abc import AsyncIterator

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from depot_api.assets.models import VersionFields
from depot_api.problems import BadRequest, BodyTooLarge, Invalid, ProblemError, UnsupportedMediaType

FILE = "file"
MEDIA_TYPE = "multipart/form-data"
# Of what is held: the longest description takes 40,000 bytes.
MAX_FIELDS_BYTES = 64 << 10


class VersionForm:
    """`begin()` reads up to the file, `file()` gives its bytes; at their end `fields` is there."""

    fields: VersionFields

    def __init__(self, content_type: str, body: AsyncIterator[bytes], announced_bytes: int | None) -> None:
        """Raises UnsupportedMediaType or BadRequest."""
        kind, options = parse_options_header(content_type)
        if kind != MEDIA_TYPE.encode():
            raise UnsupportedMediaType(f"Send the file in a form, with Content-Type {MEDIA_TYPE}.")
        boundary = options.get(b"boundary", b"")
        self._body = body
        self._announced_bytes = announced_bytes
        # How clients end a form. Fields that follow the file are counted as if they were the file's.
        self._end_bytes = len(b"\r\n--" + boundary + b"--\r\n")
        self._fed_bytes = 0
        self._held_bytes = 0
        self._header = (bytearray(), bytearray())
        self._headers_end = 0
        self._disposition = b""
        self._name = ""
        self._values: dict[str, bytearray] = {}
        self._file_start: int | None = None
        self._pieces: list[bytes] = []
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_header_begin": self._on_header_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise BadRequest(f"The form cannot be read: {error}.") from None

    async def begin(self) -> int | None:
        """How large the file can be at most; None when no length was announced. Raises Problem."""
        while self._file_start is None:
            if self._ended:
                raise _refused(FILE, "Field required")
            await self._read()
        if self._announced_bytes is None:
            return None
        return max(0, self._announced_bytes - self._file_start - self._end_bytes)

    async def file(self) -> AsyncIterator[bytes]:
        """Raises Problem, at the end also for what is wrong with another field."""
        while self._pieces or not self._ended:
            for piece in self._pieces:
                yield piece
            self._pieces.clear()
            if not self._ended:
                await self._read()
        async for _ in self._body:  # what follows the last boundary means nothing
            pass
        self.fields = self._validated()

    async def _read(self) -> None:
        chunk = await anext(self._body, None)
        if chunk is None:
            raise BadRequest("The form ends before its last boundary. Nothing was stored. Send all of it.")
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise BadRequest(f"The form cannot be read: {error}. Nothing was stored.") from None
        self._fed_bytes += len(chunk)

    def _validated(self) -> VersionFields:
        """What is empty is left out: a browser's form has no other way."""
        try:
            return VersionFields.model_validate({name: value.decode() for name, value in self._values.items() if value})
        except UnicodeDecodeError:
            raise Invalid("A field of the form is not UTF-8. Nothing was stored.") from None
        except ValidationError as error:
            found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
            raise RequestValidationError(found) from None

    def _hold(self, size_bytes: int) -> None:
        self._held_bytes += size_bytes
        if self._held_bytes > MAX_FIELDS_BYTES:
            raise BodyTooLarge(f"The fields beside {FILE} take more than {MAX_FIELDS_BYTES} bytes.")

    # What the parser calls. It bounds the size of headers by itself.

    def _on_header_begin(self) -> None:
        self._header = (bytearray(), bytearray())

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])
        self._headers_end = self._fed_bytes + end

    def _on_header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._disposition = b""
        self._name = options.get(b"name", b"").decode(errors="replace")
        self._hold(len(self._name))
        if self._name in self._values:
            raise _refused(self._name, "Sent more than once")
        if self._name == FILE and self._file_start is not None:
            raise _refused(FILE, "Sent more than once")
        if self._name == FILE:
            self._file_start = self._headers_end + len(b"\r\n\r\n")
        else:
            self._values[self._name] = bytearray()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE:
            self._pieces.append(data[start:end])
            return
        self._hold(end - start)
        self._values[self._name].extend(data[start:end])

    def _on_end(self) -> None:
        self._ended = True


def _refused(field: str, rule: str) -> Invalid:
    return Invalid(f"/{field}: {rule}", errors=[ProblemError(detail=rule, pointer=f"/{field}")])
