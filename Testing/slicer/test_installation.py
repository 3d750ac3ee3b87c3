"""What is installed, and where: behind stand-ins for Slicer's own ways to install."""

import sys
import types

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")

from stand_ins import core

core.install()


class Arriving:
    """A package that is there once it was asked for."""

    requirement, size = "absent>=1", "absent, about 1 MB"
    installed = False


@pytest.fixture
def packaging(monkeypatch):
    """Slicer 5.12's way under --testing: what skips in tests, as it does unless told otherwise, installs nothing."""
    import slicer

    def pip_ensure(requirements, constraints=None, skip_in_testing=True, **_options):
        asked.append((requirements, constraints))
        Arriving.installed = not skip_in_testing

    asked = []
    module = types.ModuleType("slicer.packaging")
    module.pip_ensure = pip_ensure
    monkeypatch.setitem(sys.modules, "slicer.packaging", module)
    monkeypatch.setattr(slicer, "packaging", module, raising=False)
    monkeypatch.setattr(Arriving, "installed", False)
    return asked


def test_what_was_asked_for_is_installed_also_when_slicer_is_testing(packaging) -> None:
    from TeachFormerLib import installation

    installation.install([Arriving()])
    ((requirements, _constraints),) = packaging
    assert requirements == ["absent>=1"]
