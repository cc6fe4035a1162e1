"""JUnit XML, one testcase per result, for the systems that show test results."""

import math
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as xml

from fastppo.bench.report.data import Entry, ResultFile, parity_verdict
from fastppo.bench.report.notes import inconclusive
from fastppo.bench.report.numbers import amount, with_ends
from fastppo.bench.report.ranking import too_slow
from fastppo.bench.report.tables_gate import FAILED, findings
from fastppo.bench.report.tables_static import problems


def junit(runs: Sequence[ResultFile]) -> str:
    """A suite per file; what could not be measured fails, what settles nothing is skipped.

    The text must have been through `text.printable`: XML cannot hold control characters.
    """
    root = xml.Element("testsuites", name="fastppo")
    for run in runs:
        facts = run.facts()
        suite = xml.SubElement(root, "testsuite", name=f"{run.kind} {run.name}".rstrip())
        suite.set("timestamp", facts["date"])
        properties(suite, facts)
        slow = {id(entry): said for entry, said in too_slow(run)}
        cases = [_case(suite, entry, slow.get(id(entry))) for entry in run.entries]
        for failure in run.failures:
            case = named(suite, failure["id"], failure["impl"])
            xml.SubElement(case, "failure", message=str(failure["reason"]), type="NotMeasured")
            cases.append(case)
        cases += [_check(suite, check) for check in run.checks]
        cases += [_parity(suite, pair) for pair in run.parity]
        if run.record.get("void"):
            cases.append(named(suite, "gate", "void"))
            xml.SubElement(cases[-1], "failure", message=str(run.record["void"]), type="Void")
        if not cases:
            cases.append(named(suite, run.kind, "nothing"))
            xml.SubElement(cases[0], "failure", message="nothing was measured", type="NotMeasured")
        count(suite, cases)
    return text(root)


def count(suite: xml.Element, cases: Sequence[xml.Element]) -> None:
    """Sets a suite's numbers of tests, failures and skipped ones."""
    for name, tag in (("failures", "failure"), ("skipped", "skipped")):
        suite.set(name, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("tests", str(len(cases)))
    suite.set("errors", "0")


def text(root: xml.Element) -> str:
    """The document, indented."""
    xml.indent(root)
    return xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def named(suite: xml.Element, name: str, impl: str) -> xml.Element:
    """A test case that passes unless something is put into it."""
    return xml.SubElement(suite, "testcase", classname=name, name=impl, time="0")


def _case(suite: xml.Element, entry: Entry, slow: str | None) -> xml.Element:
    name = entry.id if entry.clock in ("wall", "none") else f"{entry.id} {entry.clock}"
    case = named(suite, name, entry.impl)
    seconds = [s for launch in entry.launches for s in launch.get("seconds", ())]
    case.set("time", f"{sum(seconds):.3f}")
    stored = entry.detail.get("ratio")
    value, facts = entry.value, {"unit": entry.unit, "samples": str(len(entry.samples))}
    if value is not None:
        facts |= {"value": repr(value.value)}
        if not math.isnan(value.low):
            facts |= {"value_low": repr(value.low), "value_high": repr(value.high)}
            facts |= {"value_interval": value.label}
    if stored:
        facts |= {"ratio_base": str(stored["base"])}
        facts |= {
            name: repr(stored[key])
            for name, key in (("ratio", "value"), ("low", "low"), ("high", "high"))
            if stored[key] is not None
        }
    if entry.ratio is not None:
        facts |= {"ratio_interval": entry.ratio.label}
    properties(case, facts)
    if found := problems([entry]):
        xml.SubElement(case, "failure", message="; ".join(found), type="Worse")
    elif slow is not None:
        xml.SubElement(case, "failure", message=slow, type="TooSlow")
    elif entry.kind == "gate":
        _gated(case, entry)
    elif value is None:
        xml.SubElement(case, "failure", message="no sample was kept", type="NotMeasured")
    elif (reason := inconclusive(entry)) is not None:
        xml.SubElement(case, "skipped", message=reason)
    if value is not None:
        middle = with_ends(value, lambda x: amount(x, entry.unit))
        output = xml.SubElement(case, "system-out")
        output.text = f"{middle} {entry.unit}, {value.label}"
    return case


def _gated(case: xml.Element, entry: Entry) -> None:
    """A regression fails; what settles nothing is skipped."""
    for message in findings([entry]):
        if entry.detail["verdict"] == FAILED:
            xml.SubElement(case, "failure", message=message, type="Regression")
        else:
            xml.SubElement(case, "skipped", message=message)


def _check(suite: xml.Element, check: dict[str, Any]) -> xml.Element:
    """A kernel against float64."""
    case = named(suite, f"correctness/{check['name']}", "fastppo")
    if not check["passed"]:
        xml.SubElement(case, "failure", message=str(check["reason"]), type="Wrong")
    return case


def _parity(suite: xml.Element, pair: dict[str, Any]) -> xml.Element:
    """Of learning: passed, failed, or skipped: "cannot tell", and a pass by the older rule."""
    case = named(suite, f"parity/{pair.get('id', pair.get('env_id', ''))}", str(pair["impl"]))
    verdict = parity_verdict(pair)
    message = "; ".join([verdict, *map(str, pair.get("reasons", ()))])
    if pair["verdict"] == "failed":
        xml.SubElement(case, "failure", message=message, type="LearningParity")
    elif verdict != "passed":
        xml.SubElement(case, "skipped", message=message)
    else:
        xml.SubElement(case, "system-out").text = message
    return case


def properties(parent: xml.Element, values: dict[str, str]) -> None:
    """Adds names and values to a suite or a test case."""
    holder = xml.SubElement(parent, "properties")
    for name, value in values.items():
        xml.SubElement(holder, "property", name=name, value=value)
