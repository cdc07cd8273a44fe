"""The facts for a bug report, on sound and on broken installations."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from schuss import info


@pytest.fixture
def facts():
    return info.collect()


def test_facts_are_json_and_complete(facts):
    again = json.loads(json.dumps(facts))
    assert again == facts
    assert set(facts["packages"]) == {*info.REQUIRED, *info.OPTIONAL}
    assert facts["packages"]["numpy"]["version"] == np.__version__
    assert facts["processor"]["cores"] == os.cpu_count()
    assert facts["backends"]["reference"] == {
        "available": True,
        "automatic": False,
        "reason": None,
    }
    assert sum(backend["automatic"] for backend in facts["backends"].values()) <= 1
    assert "error" not in facts["processor"] | facts["threads"] | facts["backends"]


def test_every_backend_that_is_missing_says_why(facts):
    for backend in facts["backends"].values():
        assert backend["available"] == (backend["reason"] is None)
    text = info.render(facts)
    for name, backend in facts["backends"].items():
        line = next(line for line in text.splitlines() if line.split()[:1] == [name])
        assert ("available" in line) == backend["available"]
        assert backend["available"] or backend["reason"] in line


def test_missing_packages_name_the_extra(facts, monkeypatch):
    monkeypatch.setattr(info, "_version", lambda package: None)
    text = info.render(info.collect())
    assert "missing: pip install numpy" in text
    assert "not installed: pip install '.[plot]' from a clone" in text
    assert "mpi4py" not in text  # this version does not use it


def test_threads_and_what_limits_them(monkeypatch):
    monkeypatch.setenv("SCHUSS_NUM_THREADS", "1")
    threads = info.collect()["threads"]
    assert threads["used"] == 1
    assert threads["limits"]["SCHUSS_NUM_THREADS"] == 1
    text = info.render(info.collect())
    assert "SCHUSS_NUM_THREADS" in text
    monkeypatch.setenv("SCHUSS_NUM_THREADS", "many")
    threads = info.collect()["threads"]
    assert "SCHUSS_NUM_THREADS" in threads["error"]
    assert "'many'" in info.render(info.collect())


@pytest.mark.parametrize("part", ["_packages", "_processor", "_threads", "_backends", "_native"])
def test_a_part_that_fails_does_not_take_the_rest_along(monkeypatch, part):
    def broken():
        raise OSError("no such thing")

    monkeypatch.setattr(info, part, broken)
    text = info.render(info.collect())
    assert "no such thing" in text
    assert "versions" in text


def test_without_the_extension(monkeypatch):
    real = info.util.find_spec
    monkeypatch.setattr(
        info.util, "find_spec", lambda name: None if name == "schuss._native" else real(name)
    )
    facts = info.collect()
    assert facts["native"] == {}
    assert facts["backends"]["native"]["reason"]
    assert "instruction set" not in info.render(facts)


def test_processor_where_the_system_tells_nothing(monkeypatch):
    def absent(*args, **kwargs):
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", absent)
    assert info._from_cpuinfo() == ("", set())
    monkeypatch.setattr(info.sys, "platform", "darwin")
    monkeypatch.setattr(
        subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, "Apple M9\n")
    )
    assert info._from_cpuinfo() == ("Apple M9", set())


def test_show_versions_prints_the_facts(capsys):
    info.show_versions()
    assert capsys.readouterr().out == info.render(info.collect()) + "\n"


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--json"], 0), (["--xml"], 2)])
def test_main(capsys, arguments, code):
    assert info.main(arguments) == code
    out = capsys.readouterr()
    if arguments == ["--json"]:
        assert json.loads(out.out)["schuss"]
    assert ("usage" in out.err) == (code == 2)


def test_module_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "schuss.info", "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["python"].startswith(sys.version.split()[0])
