"""The phantom as OpenI: the archive of XML, its images, and Kaggle's two tables beside them.

Every ninth report has no image, as some of theirs; sections that a report lacks are empty elements.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from data_shards.files.atomic import write_bytes_atomically
from data_shards.phantom.layouts.drawn import Rows, csv_bytes, draw_study, encoded, write_file
from data_shards.phantom.settings import PhantomConfig
from data_shards.phantom.study import Study
from data_shards.report_text.mimic_cxr_sections import split_sections

REPORTS_NAME = "NLMCXR_reports.tgz"
IMAGES_NAME = "NLMCXR_png"
KAGGLE_NAME = "indiana_reports.csv"
WITHOUT_IMAGE_EVERY = 9
_SECTIONS = ("comparison", "indication", "findings", "impression")
_XML = """<?xml version="1.0" encoding="utf-8"?>
<eCitation>
   <meta type="rr"/>
   <uId id="CXR{number}"/>
   <MedlineCitation Owner="Indiana University" Status="supplied by publisher">
      <Article PubModel="Electronic">
         <Abstract>
{texts}
         </Abstract>
      </Article>
   </MedlineCitation>
   <MeSH>
{headings}
   </MeSH>
{images}
</eCitation>
"""


def write_study(config: PhantomConfig, study: Study) -> Rows:
    """A study's images, and its report in both forms."""
    drawn = draw_study(config, study)
    number = study.number + 1
    sections = split_sections(drawn.report.text)
    if "findings and impression" in drawn.report.text.lower():
        sections = {"impression": sections.get("impression", "")}
    texts = {name: " ".join(sections.get(name, "").split()) for name in _SECTIONS}
    headings: list[str] = sorted({each.category for each in study.findings}) or ["normal"]
    images: list[tuple[str, str]] = []
    if study.number % WITHOUT_IMAGE_EVERY:
        views = [("4001", "Frontal", drawn.rendered.frontal)]
        if drawn.rendered.lateral is not None:
            # Before the frontal in the list, as theirs may be.
            views.insert(0, ("3001", "Lateral", drawn.rendered.lateral))
        for series, view, image in views:
            name = f"{number}_IM-{number % 10_000:04d}-{series}"
            path = config.archive / IMAGES_NAME / f"CXR{number}_{name}.png"
            write_file(path, encoded(image, "PNG", compress_level=1))
            images.append((name, view))
    xml = _XML.format(
        number=number,
        texts="\n".join(_section(name, text) for name, text in texts.items()),
        headings="\n".join(f"      <major>{escape(each)}</major>" for each in headings),
        images="\n".join(f'   <parentImage id="CXR{number}_{name}"/>' for name, _ in images),
    )
    row = [number, ";".join(headings), ";".join(headings), "Xray Chest PA and Lateral"]
    row += [texts[name] for name in ("indication", "comparison", "findings", "impression")]
    return {
        "xml": [[f"ecgen-radiology/{number}.xml", xml]],
        "kaggle": [row],
        "projections": [[number, f"{name}.dcm.png", view] for name, view in images],
    }


def _section(name: str, text: str) -> str:
    start = f"            <AbstractText Label={quoteattr(name.upper())}"
    return f"{start}>{escape(text)}</AbstractText>" if text else f"{start}/>"


def write_tables(config: PhantomConfig, rows: Rows) -> None:
    """The archive of XML, and Kaggle's tables."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, xml in sorted(rows["xml"]):
            content = xml.encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    compressed = gzip.compress(packed.getvalue(), mtime=0)
    write_bytes_atomically(config.archive / REPORTS_NAME, compressed)
    for name, header, kind in (
        (
            KAGGLE_NAME,
            "uid,MeSH,Problems,image,indication,comparison,findings,impression",
            "kaggle",
        ),
        ("indiana_projections.csv", "uid,filename,projection", "projections"),
    ):
        write_bytes_atomically(config.archive / name, csv_bytes(header, rows[kind]))


def importer_settings(config: PhantomConfig) -> dict[str, Any]:
    """Where the importer of OpenI finds everything."""
    archive = config.archive
    return {"reports": archive / REPORTS_NAME, "image_root": archive / IMAGES_NAME}
