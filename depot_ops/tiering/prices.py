"""What storage costs, from a table that people fill in from their own contract."""

from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from depot_ops.tiering.classes import StorageClass
from depot_ops.tiering.documents import load_document, parse_document

GIB = 1 << 30
EXAMPLE = "prices.example.yaml"


class ClassPrice(BaseModel):
    """Of one storage class, in the table's currency."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gib_month: float = Field(ge=0)
    """Of storing a GiB for a month."""
    thousand_objects_month: float = Field(0.0, ge=0)
    """Of watching a thousand objects, in INTELLIGENT_TIERING."""
    thousand_moves: float = Field(0.0, ge=0)
    """Of a thousand requests that move objects into the class."""
    overhead_bytes: int = Field(0, ge=0)
    """Billed with each object, at the price of its class."""
    standard_overhead_bytes: int = Field(0, ge=0)
    """Billed with each object, at the price of STANDARD."""


class PriceTable(BaseModel):
    """Prices of every class."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    currency: str = Field(min_length=1, max_length=10)
    note: str = ""
    """Where the numbers are from; shown beside every sum."""
    classes: dict[StorageClass, ClassPrice]

    @model_validator(mode="after")
    def _complete(self) -> "PriceTable":
        if missing := [name for name in StorageClass if name not in self.classes]:
            raise ValueError(f"prices of {', '.join(missing)} are missing")
        return self

    def monthly(self, storage_class: StorageClass, objects: int, size_bytes: int) -> float:
        """Of storing them for a month, to the cent."""
        price, standard = self.classes[storage_class], self.classes[StorageClass.STANDARD]
        stored = (size_bytes + objects * price.overhead_bytes) / GIB * price.gib_month
        index = objects * price.standard_overhead_bytes / GIB * standard.gib_month
        return round(stored + index + objects / 1000 * price.thousand_objects_month, 2)

    def moves(self, into: StorageClass, objects: int) -> float:
        """Of moving so many objects, once, to the cent."""
        return round(objects / 1000 * self.classes[into].thousand_moves, 2)


def load_prices(path: Path | None) -> PriceTable:
    """The table at `path`, or the example's numbers. Raises DocumentError."""
    if path is not None:
        return load_document(path, PriceTable)
    return parse_document((files(__package__) / EXAMPLE).read_text(encoding="utf-8"), PriceTable, EXAMPLE)
