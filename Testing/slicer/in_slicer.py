"""The module, the CLI module and the worker inside a launched Slicer; screenshots; 'N passed, N failed'; exit code.

    Slicer --python-script Testing/slicer/in_slicer.py [-- --output FOLDER]

Works from the source tree with a Slicer that has never seen TeachFormer: it adds the two modules itself. Nothing is
installed; where a package is missing, the checks that need it fail with its name. Python 3.9 (Slicer 5.8) and later.
"""

import platform
import sys
import time
import traceback
from pathlib import Path

import slicer
import slicer.util

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = REPOSITORY / "TeachFormerSlicer" / "TeachFormer" / "TeachFormer.py"
CLI = REPOSITORY / "TeachFormerSlicer" / "TeachFormerCLI" / "TeachFormerCLI.py"


def main(words):
    """The number of checks that failed, 1 at least where nothing could be checked."""
    output = Path(words[words.index("--output") + 1]) if "--output" in words else REPOSITORY / "build" / "in_slicer"
    output.mkdir(parents=True, exist_ok=True)
    say(f"Slicer {slicer.app.applicationVersion}, Python {platform.python_version()}, {platform.platform()}")
    passed, failed = 0, 0
    steps = [("the modules load", load_modules)]
    number = 0
    while number < len(steps):
        name, check = steps[number]
        start = time.monotonic()
        try:
            slicer.mrmlScene.Clear()
            more = check()
            passed += 1
            say(f"passed: {name} ({time.monotonic() - start:.1f} s)")
            if number == 0:
                steps += more
        except BaseException as error:  # one check that fails, in whatever way, does not take the others with it
            failed += 1
            say(f"FAILED: {name} ({time.monotonic() - start:.1f} s)")
            say(f"  {type(error).__name__}: {error}")
            say("  " + traceback.format_exc().replace("\n", "\n  "))
            say_status()
        screenshot(output / f"{number:02d} {name}.png")
        number += 1
    say(f"screenshots: {output}")
    say(f"{passed} passed, {failed} failed")
    return failed


def load_modules():
    """Loads both modules where they are not installed; answers the checks."""
    for name, file in (("TeachFormer", MODULE), ("TeachFormerCLI", CLI)):
        if name.lower() in dir(slicer.modules):
            say(f"  {name} is loaded already: {getattr(slicer.modules, name.lower()).path}")
            continue
        factory = slicer.app.moduleManager().factoryManager()
        import qt

        factory.registerModule(qt.QFileInfo(str(file)))
        if not factory.isRegistered(name):
            raise RuntimeError(f"{file} could not be registered: is it complete, and named as its class?")
        if not factory.loadModules([name]):
            raise RuntimeError(f"{name} could not be loaded: the lines above this one tell why")
    from TeachFormerLib.core import find_core

    if find_core() is None:
        raise RuntimeError("TeachFormerCore was not found: run this from the source tree, or install the extension")
    from TeachFormerLib import sampledata, selftest

    if "TeachFormer" not in getattr(slicer.modules, "sampleDataSources", {}):
        sampledata.register(MODULE.parent / "Resources" / "Icons")  # Slicer had started before the module came
    return [*selftest.checks(), ("the module's own test", own_test), ("reload", reload_module)]


def own_test():
    """What Reload and Test runs, without its checks again: that Slicer knows it."""
    if "TeachFormer" not in slicer.selfTests:
        raise AssertionError("Slicer does not list the module's self test")


def reload_module():
    """The module is loaded anew and its panel works."""
    slicer.util.selectModule("TeachFormer")
    slicer.util.getModuleWidget("TeachFormer").onReload()
    from TeachFormerLib import selftest

    selftest.panelLoads()


def say_status():
    """What the panel shows, and the log of its last run."""
    try:
        panel = slicer.util.getModuleWidget("TeachFormer").panel
        say(f"  status line: {panel.ui.statusLabel.text}")
        say("  log: " + panel.ui.logText.toPlainText().replace("\n", "\n    ")[-4000:])
    except Exception as error:
        say(f"  (the panel cannot be asked: {error})")


def screenshot(file):
    """The whole window; without one, or on an error, a sentence."""
    try:
        slicer.app.processEvents()
        window = slicer.util.mainWindow()
        if window is None or not window.grab().save(str(file)):
            say("  (no screenshot: there is no main window)")
    except Exception as error:
        say(f"  (no screenshot: {error})")


def say(text):
    print(text, flush=True)


if __name__ == "__main__":
    try:
        code = 1 if main(sys.argv[1:]) else 0
    except BaseException:
        traceback.print_exc()
        print("0 passed, 1 failed", flush=True)
        code = 1
    slicer.util.exit(code)
