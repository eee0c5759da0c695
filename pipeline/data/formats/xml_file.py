"""XML files of annotations, read without entities, document types or anything from outside of the file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_BYTES = 32 * 2**20  # annotations of one image; far more than any tool writes


def parse(path: Path) -> Element:
    """The root element.

    Raises:
        ValueError: not XML, cut off, too large, or with entities or a document type, which could read files, fetch
            addresses or fill the memory.
    """
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
    from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]

    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES // 2**20} MiB")
    try:
        return fromstring(path.read_bytes(), forbid_dtd=True)
    except DefusedXmlException as error:
        raise ValueError(f"holds a document type or an entity ({type(error).__name__}), which is not read") from None
    except ParseError as error:
        line = error.position[0]
        cut = re.match("no element found|unclosed", str(error))
        raise ValueError(f"{'cut off' if cut else 'not XML'} at line {line} ({error})") from None
    except (UnicodeDecodeError, LookupError, ValueError) as error:
        raise ValueError(f"not XML of an encoding that can be read ({error})") from None


def text_of(element: Element, path: str) -> str | None:
    """The text at a path below an element without surrounding space, or None where there is none."""
    found = element.findtext(path)
    return found.strip() or None if found is not None else None
