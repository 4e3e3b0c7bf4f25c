"""Places where second copies lie, `file:///directory` or `s3://bucket/prefix`: written once, whole, and proved."""

from urllib.parse import unquote, urlsplit

from depot_ops.places.directory import DirectoryPlace
from depot_ops.places.object_storage import ObjectStorage
from depot_ops.places.place import Place, PlaceConflict, PlaceDamaged, PlaceError, PlaceMissing, Stored
from depot_ops.settings import ObjectStorageSettings, load

__all__ = ["Place", "PlaceConflict", "PlaceDamaged", "PlaceError", "PlaceMissing", "Stored", "open_place"]


def open_place(url: str) -> Place:
    """The place that `url` names, once it answers. Raises PlaceError, and SettingsError for unusable settings."""
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return DirectoryPlace(unquote(parts.path))
    if parts.scheme == "s3" and parts.netloc and not parts.username:
        return ObjectStorage(parts.netloc, unquote(parts.path).strip("/"), load(ObjectStorageSettings))
    raise PlaceError(f"{parts.scheme or url!r} names no place. Use file:///directory or s3://bucket/prefix")
