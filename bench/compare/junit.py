"""A comparison of two result files as JUnit XML, one testcase per row."""

from xml.etree import ElementTree as xml

from fastppo.bench.compare.comparison import Comparison
from fastppo.bench.compare.drift import INCONCLUSIVE, REGRESSION
from fastppo.bench.compare.table import ratio_of, sentence
from fastppo.bench.compare.verdicts import NOT_MEASURED, ComparedRow
from fastppo.bench.report.junit import count, named, properties, text

FAILURES = {REGRESSION: "Regression", NOT_MEASURED: "NotMeasured"}


def junit(found: Comparison, *, strict: bool) -> str:
    """What became slower or was not measured fails; what settles nothing is skipped.

    A void comparison fails as a case of its own, and what it holds of both files is skipped.

    Args:
        strict: what settles nothing fails, too, as in the exit code.
    """
    root = xml.Element("testsuites", name="fastppo")
    suite = xml.SubElement(root, "testsuite", name=f"compare {found.a.name} {found.b.name}")
    suite.set("timestamp", found.b.facts()["date"])
    for name, run in (("A", found.a), ("B", found.b)):
        properties(suite, {f"{name} {key}": value for key, value in run.facts().items()})
    whole = named(suite, "compare", "fastppo")
    if found.void is not None:
        xml.SubElement(whole, "failure", message=sentence(found), type="Void")
    else:
        xml.SubElement(whole, "system-out").text = sentence(found)
    for row in found.rows:
        _case(suite, row, void=found.void is not None, strict=strict)
    count(suite, suite.findall("testcase"))
    return text(root)


def _case(suite: xml.Element, row: ComparedRow, *, void: bool, strict: bool) -> None:
    name = row.id if row.clock == "wall" else f"{row.id} {row.clock}"
    case = named(suite, name, row.impl)
    shown = "" if row.ratio is None else f"ratio {ratio_of(row)}"
    message = "; ".join(part for part in (row.verdict, shown, row.remark) if part)
    if row.control is not None:
        properties(case, {"machine alone": repr(row.control)})
    if void and row.verdict != NOT_MEASURED:
        xml.SubElement(case, "skipped", message="void")
    elif row.verdict in FAILURES:
        xml.SubElement(case, "failure", message=message, type=FAILURES[row.verdict])
    elif row.verdict == INCONCLUSIVE and strict:
        xml.SubElement(case, "failure", message=message, type="Inconclusive")
    elif row.verdict == INCONCLUSIVE:
        xml.SubElement(case, "skipped", message=message)
    else:
        xml.SubElement(case, "system-out").text = message
