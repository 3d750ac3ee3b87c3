"""The module, the CLI module and the worker inside a launched Slicer; screenshots; 'N passed, N failed'; exit code.

    Slicer --python-script Testing/slicer/in_slicer.py [-- [--output FOLDER] [--no-install]]

Works from the source tree with a Slicer that has never seen TeachFormer: it adds the two modules itself, and installs
what computing needs as the panel's Install button does (``--no-install``: nothing). What cannot be installed is told,
and the checks that need it count as failed; those that need nothing but Slicer run all the same. All that is said is
also in ``report.txt`` beside the screenshots. Python 3.9 (Slicer 5.8) and later.
"""

import faulthandler
import importlib.metadata
import platform
import sys
import time
import traceback
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = REPOSITORY / "TeachFormerSlicer" / "TeachFormer" / "TeachFormer.py"
CLI = REPOSITORY / "TeachFormerSlicer" / "TeachFormerCLI" / "TeachFormerCLI.py"
OUTPUT = REPOSITORY / "build" / "in_slicer"
PACKAGES = ("numpy", "SimpleITK", "vtk", "torch", "safetensors", "onnxruntime", "openvino", "pip")
# A step that takes longer than this has every thread's stack written to the report, and is waited for all the same.
STUCK_S = 900
LOG_LINES = 60
_report = None  # the open report, once there is one


def main(words):
    """The number of checks that failed, 1 at least where nothing could be checked."""
    output = Path(words[words.index("--output") + 1]) if "--output" in words else OUTPUT
    open_report(output)
    import slicer.util

    say_versions(slicer)
    steps = [("the modules load", load_modules), ("what computing needs is installed", lambda: install(words))]
    passed, failed, number = 0, 0, 0
    while number < len(steps):
        name, check = steps[number]
        if attempt(name, check, slicer, steps):
            passed += 1
        else:
            failed += 1
        screenshot(output / f"{number:02d} {name}.png")
        number += 1
    say(f"report and screenshots: {output}")
    say(f"{passed} passed, {failed} failed")
    return failed


def attempt(name, check, slicer, steps):
    """Runs a check, in an empty scene, and tells its end; one that fails, in whatever way, leaves the others alone."""
    start = time.monotonic()
    if _report is not None:
        faulthandler.dump_traceback_later(STUCK_S, repeat=True, file=_report)
    try:
        slicer.mrmlScene.Clear()
        more = check()
        if check is load_modules:
            steps += more
        say(f"passed: {name} ({time.monotonic() - start:.1f} s)")
        return True
    except BaseException as error:
        say(f"FAILED: {name} ({time.monotonic() - start:.1f} s)")
        say(f"  {type(error).__name__}: {error}")
        if type(error).__name__ not in ("NotInstalled", "InstallationError"):  # their sentence says it all
            say("  " + traceback.format_exc().replace("\n", "\n  "))
            say_status(slicer)
            say_log(slicer)
        return False
    finally:
        faulthandler.cancel_dump_traceback_later()


def load_modules():
    """Loads both modules where they are not installed; answers the checks."""
    import qt
    import slicer

    for name, file in (("TeachFormer", MODULE), ("TeachFormerCLI", CLI)):
        if hasattr(slicer.modules, name.lower()):
            say(f"  {name} is loaded already: {getattr(slicer.modules, name.lower()).path}")
            continue
        if name == "TeachFormer":  # Slicer would only log what is wrong with it; this raises it
            sys.path.insert(0, str(file.parent))
            __import__(name)
        factory = slicer.app.moduleManager().factoryManager()
        factory.registerModule(qt.QFileInfo(str(file)))
        if not factory.isRegistered(name):
            raise RuntimeError(f"{file} could not be registered: is it complete, and named as its class?")
        if not factory.loadModules([name]):
            raise RuntimeError(f"{name} could not be loaded: the lines of Slicer's log below tell why")
        say(f"  loaded: {file}")
    from TeachFormerLib.core import find_core

    if find_core() is None:
        raise RuntimeError("TeachFormerCore was not found: run this from the source tree, or install the extension")
    from TeachFormerLib import sampledata, selftest

    if sampledata.CATEGORY not in getattr(slicer.modules, "sampleDataSources", {}):
        sampledata.register(MODULE.parent / "Resources" / "Icons")  # Slicer had started before the module came
    return [
        *selftest.checks(),
        ("a run goes on while only the window's own loop works", run_in_the_windows_loop),
        ("Slicer knows the module's own test", own_test),
        ("the module is loaded anew", reload_module),
    ]


def install(words):
    """What the panel's Install button does, without its question."""
    from TeachFormerLib import installation, models, selftest

    needed = installation.missing(models.listModels()[0])
    if not needed:
        say("  nothing is missing")
        return
    say(f"  {installation.sentence(needed)}")
    if "--no-install" in words:
        raise selftest.NotInstalled(", ".join(package.requirement for package in needed))
    installation.install(needed)


def run_in_the_windows_loop():
    """As for a user: no loop of Python's that gives the threads their turns, only Qt's, and the panel's timer in it."""
    import qt
    from TeachFormerLib import selftest

    found = selftest.panel()
    selftest.ready(found)
    loop, timer, start = qt.QEventLoop(), qt.QTimer(), time.monotonic()
    timer.setInterval(500)
    timer.timeout.connect(lambda: None if found.busy and time.monotonic() - start < selftest.LIMIT_S else loop.quit())
    found.ui.applyButton.click()
    timer.start()
    loop.exec_()
    timer.stop()
    run = found.runSection.run
    if found.busy or run.failure:
        raise AssertionError(
            f"the run is '{run.state}' after {time.monotonic() - start:.0f} s: {run.failure}\n{run.log}"
        )
    say(f"  {time.monotonic() - start:.1f} s; {found.ui.statusLabel.text}")


def own_test():
    """What Reload and Test runs, without its checks again."""
    import slicer

    if "TeachFormer" not in slicer.selfTests:
        raise AssertionError(f"Slicer does not list the module's self test ({sorted(slicer.selfTests)})")


def reload_module():
    """The module is loaded anew, and its panel works."""
    import slicer

    if slicer.util.mainWindow() is not None:
        slicer.util.selectModule("TeachFormer")
    slicer.util.getModuleWidget("TeachFormer").onReload()
    from TeachFormerLib import selftest

    selftest.panelLoads()


# --- what is told


def open_report(folder):
    """Everything that is said goes there too; without it, where the folder cannot be written, to the console alone."""
    global _report
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _report = (folder / "report.txt").open("w", encoding="utf-8")
        faulthandler.enable(file=_report)  # should Slicer crash, this says where
    except OSError as error:
        say(f"(no report: {error})")


def say_versions(slicer):
    say(f"Slicer {slicer.app.applicationVersion}, Python {platform.python_version()}, {platform.platform()}")
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} -")
    say(f"  {', '.join(found)}")
    say(f"  interpreter of the worker: {sys.executable}")
    say(f"  PyTorch extension: {'there' if hasattr(slicer.modules, 'pytorchutils') else 'not installed'}")


def say_status(slicer):
    """What the panel shows, and the log of its last run."""
    try:
        from TeachFormerLib import diagnostics

        panel = getattr(slicer.modules, "TeachFormerWidget", slicer.util.getModuleWidget("TeachFormer")).panel
        run = panel.runSection.run
        say(f"  status line: {panel.ui.statusLabel.text}")
        say("  diagnostics: " + diagnostics.text(panel.devices, panel.model, run).replace("\n", "\n    "))
        said = run.log if run is not None else []
        say(f"  the worker said ({len(said)} lines):" + "".join(f"\n    {line}" for line in said[-LOG_LINES:]))
    except Exception as error:
        say(f"  (the panel cannot be asked: {type(error).__name__}: {error})")


def say_log(slicer):
    """The end of Slicer's own log, where it puts what it does not raise."""
    try:
        lines = Path(slicer.app.errorLogModel().filePath).read_text(encoding="utf-8", errors="replace").splitlines()
        say("  Slicer's log:" + "".join(f"\n    {line}" for line in lines[-LOG_LINES:]))
    except Exception as error:
        say(f"  (no log of Slicer's: {type(error).__name__}: {error})")


def screenshot(file):
    """The whole window; without one, or on an error, a sentence."""
    try:
        import slicer

        slicer.app.processEvents()
        window = slicer.util.mainWindow()
        if window is None or not window.grab().save(str(file)):
            say("  (no screenshot: there is no main window)")
    except Exception as error:
        say(f"  (no screenshot: {error})")


def say(text):
    print(text, flush=True)
    if _report is not None:
        _report.write(text + "\n")
        _report.flush()


def run(words):
    """`main`, and the exit code to Slicer, whatever happens."""
    try:
        code = 1 if main(words) else 0
    except BaseException:
        say(traceback.format_exc())
        say("0 passed, 1 failed")
        code = 1
    try:
        import slicer.util

        slicer.util.exit(code)
    except (ImportError, AttributeError):
        say("This is for 3D Slicer: Slicer --python-script Testing/slicer/in_slicer.py")
        sys.exit(code)


if __name__ == "__main__":
    run(sys.argv[1:])
