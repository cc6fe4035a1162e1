"""JUnit XML, one testcase per result, for the systems that show test results."""

import math
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as xml

from fastppo.bench.report.data import Entry, Run, parity_verdict
from fastppo.bench.report.notes import inconclusive
from fastppo.bench.report.numbers import amount, interval


def junit(runs: Sequence[Run]) -> str:
    """A suite per file; what could not be measured fails, what settles nothing is skipped.

    The text must have been through `text.printable`: XML cannot hold control characters.
    """
    root = xml.Element("testsuites", name="fastppo")
    for run in runs:
        facts = run.facts()
        suite = xml.SubElement(root, "testsuite", name=f"{run.kind} {run.name}".rstrip())
        suite.set("timestamp", facts["date"])
        add_properties(suite, facts)
        for entry in run.entries:
            _case(suite, entry)
        for failure in run.failures:
            case = testcase(suite, failure["id"], failure["impl"])
            xml.SubElement(case, "failure", message=str(failure["reason"]), type="NotMeasured")
        for check in run.checks:
            _check(suite, check)
        for told in run.parity:
            _parity(suite, told)
        if suite.find("testcase") is None:
            case = testcase(suite, run.kind, "nothing")
            xml.SubElement(case, "failure", message="nothing was measured", type="NotMeasured")
        tally(suite)
    return text(root)


def tally(suite: xml.Element) -> None:
    """Writes down how many cases of a suite there are, how many failed and were skipped."""
    cases = suite.findall("testcase")
    for name, tag in (("failures", "failure"), ("skipped", "skipped")):
        suite.set(name, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("tests", str(len(cases)))
    suite.set("errors", "0")


def text(root: xml.Element) -> str:
    """The whole file."""
    xml.indent(root)
    return xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def testcase(suite: xml.Element, name: str, impl: str) -> xml.Element:
    """A new case that passes until something is added to it."""
    return xml.SubElement(suite, "testcase", classname=name, name=impl, time="0")


def _case(suite: xml.Element, entry: Entry) -> None:
    name = entry.id if entry.clock == "wall" else f"{entry.id} {entry.clock}"
    case = testcase(suite, name, entry.impl)
    seconds = [s for launch in entry.launches for s in launch.get("seconds", ())]
    case.set("time", f"{sum(seconds):.3f}")
    told = entry.detail.get("ratio")
    value, facts = entry.value, {"unit": entry.unit, "samples": str(len(entry.samples))}
    if value is not None:
        facts |= {"value": repr(value.value)}
        if not math.isnan(value.low):
            facts |= {"value_low": repr(value.low), "value_high": repr(value.high)}
    if told:
        facts |= {"ratio_base": str(told["base"])}
        facts |= {
            name: repr(told[key])
            for name, key in (("ratio", "value"), ("low", "low"), ("high", "high"))
            if told[key] is not None
        }
    add_properties(case, facts)
    if value is None:
        xml.SubElement(case, "failure", message="no sample was kept", type="NotMeasured")
    elif (reason := inconclusive(entry)) is not None:
        xml.SubElement(case, "skipped", message=reason)
    if value is not None:
        ends = interval(value.low, value.high, lambda x: amount(x, entry.unit))
        output = xml.SubElement(case, "system-out")
        output.text = f"{amount(value.value, entry.unit)} {ends} {entry.unit}"


def _check(suite: xml.Element, check: dict[str, Any]) -> None:
    """A kernel against float64."""
    case = testcase(suite, f"correctness/{check['name']}", "fastppo")
    if not check["passed"]:
        xml.SubElement(case, "failure", message=str(check["reason"]), type="Wrong")


def _parity(suite: xml.Element, told: dict[str, Any]) -> None:
    """Of learning: passed, failed, or skipped: "cannot tell", and a pass by the older rule."""
    case = testcase(suite, f"parity/{told.get('id', told.get('env_id', ''))}", str(told["impl"]))
    verdict = parity_verdict(told)
    message = "; ".join([verdict, *map(str, told.get("reasons", ()))])
    if told["verdict"] == "failed":
        xml.SubElement(case, "failure", message=message, type="LearningParity")
    elif verdict != "passed":
        xml.SubElement(case, "skipped", message=message)
    else:
        xml.SubElement(case, "system-out").text = message


def add_properties(parent: xml.Element, values: dict[str, str]) -> None:
    holder = xml.SubElement(parent, "properties")
    for name, value in values.items():
        xml.SubElement(holder, "property", name=name, value=value)
