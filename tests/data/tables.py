"""Tables of captioned images, as `datasets` pushes them to the Hub."""

from __future__ import annotations

import io
import json

import pyarrow
import pyarrow.parquet

from tests.data.images import png


def parquet(rows: list[dict[str, object]], **types: str) -> bytes:
    """Return a table as `datasets` would push it; `types` names each column's feature."""
    known = {
        "Image": pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}),
        "string": pyarrow.string(),
        "strings": pyarrow.list_(pyarrow.string()),
    }
    string = {"dtype": "string", "_type": "Value"}
    described = {
        "Image": {"_type": "Image"},
        "string": string,
        "strings": {"feature": string, "_type": "List"},
    }
    features = {name: described[kind] for name, kind in types.items()}
    schema = pyarrow.schema(
        [(name, known[kind]) for name, kind in types.items()],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), file)
    return file.getvalue()


def row(seed: int, text: str | None, **more: object) -> dict[str, object]:
    """Return a row with an image and a caption."""
    return {"image": {"bytes": png(seed), "path": f"{seed}.png"}, "text": text, **more}


IMAGES = {"image": "Image", "text": "string"}
