"""Started by the module as a process of its own: ``python launch.py FOLDER COMMAND ...``.

FOLDER holds TeachFormerCore. COMMAND is ``job FILE`` (one case, as JSON), ``cases JSON`` (a batch), ``devices`` (what
computes here, as JSON), ``phantom FOLDER`` (the synthetic case as NRRD files), ``surfaces FOLDER`` (meshes of masks),
or a command of ``teachformer``.
"""

import json
import sys
import traceback
from pathlib import Path


def main(words):
    """The exit code: 0 done, 1 some failed, 2 input, 3 install, 4 internal, 130 cancelled; an error is a sentence."""
    # This folder goes: names such as models or geometry are not for the whole process.
    sys.path[0] = words[0]
    from TeachFormerCore.errors import as_teachformer_error

    try:
        return run(words[1], words[2:])
    except Exception as error:
        told = as_teachformer_error(error)
        if told is not error:
            traceback.print_exc()
        print(f"error: {told}", flush=True)
        return told.exit_code


def run(command, options):
    """Runs a command; its exit code."""
    if command == "job":
        return run_job(Path(options[0]))
    if command == "cases":
        return run_batch(json.loads(options[0]))
    if command == "devices":
        print(json.dumps(describe_devices()), flush=True)
        return 0
    if command == "phantom":
        return write_phantom(Path(options[0]))
    if command == "surfaces":
        return write_surfaces(Path(options[0]))
    from TeachFormerCore.commands import main as teachformer

    return teachformer([command, *options])


def run_job(file):
    """Runs the worker on a job; an output that cannot be computed here is left out, and said so."""
    import importlib.util
    from dataclasses import fields

    from TeachFormerCore.inference.outputs import Outputs
    from TeachFormerCore.inference.worker import Job, run_segmentation

    job = json.loads(file.read_text(encoding="utf-8"))
    result, error = (Path(job.pop(name)) for name in ("result_file", "error_file"))
    outputs = {name: Path(path) for name, path in job.pop("outputs").items()}
    known = {field.name for field in fields(Outputs)}
    if importlib.util.find_spec("torch") is None:
        known -= {"attention_gradcam"}
    for name in sorted(set(outputs) - known):
        print(f"note: {name} cannot be computed here (Grad-CAM needs PyTorch).", flush=True)
    outputs = Outputs(**{name: path for name, path in outputs.items() if name in known})
    inputs = tuple(job.pop("inputs"))
    return run_segmentation(Job(inputs=inputs, outputs=outputs, **job), result_file=result, error_file=error)


def run_batch(batch):
    """Segments the cases of a batch with the worker, which tells its progress in Slicer's words."""
    from TeachFormerCore.inference.worker import BatchJob, run_cases

    source, output = Path(batch.pop("source")), Path(batch.pop("output")).resolve()
    return run_cases(BatchJob(source=source, output=output, **batch))


def describe_devices():
    """``{versions, devices: [{id, name, free_bytes}], refused}``; a GPU only where a small real operation ran on it."""
    import platform

    from TeachFormerCore import __version__
    from TeachFormerCore.devices import available_devices
    from TeachFormerCore.versions import installed_version

    versions = {"TeachFormer": __version__, "Python": platform.python_version()}
    for package in ("numpy", "SimpleITK", "safetensors", "torch", "openvino", "onnxruntime"):
        versions[package] = installed_version(package)
    refused = []
    found = available_devices(refused.append)
    devices = [{"id": one.name, "name": one.description, "free_bytes": one.free_bytes} for one in found]
    return {"versions": versions, "devices": devices, "refused": refused}


def write_phantom(folder):
    """The synthetic case: CT.nrrd, PET.nrrd and label.nrrd."""
    from TeachFormerCore.data.image import OutputFiles
    from TeachFormerCore.data.phantom import thigh_phantom

    phantom = thigh_phantom()
    with OutputFiles() as files:
        for name, image in {**phantom.images, "label": phantom.label}.items():
            files.write_image(image, folder / f"{name}.nrrd")
    return 0


def write_surfaces(folder):
    """For each ``N-mask.npy`` and ``N-matrix.npy`` (voxels to mm) of a folder: ``N-surface.npz``, a smooth mesh."""
    import numpy as np
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    for file in sorted(folder.glob("*-mask.npy")):
        number = file.name.partition("-")[0]
        mask, matrix = np.load(file), np.load(folder / f"{number}-matrix.npy")
        image = vtk.vtkImageData()
        image.SetDimensions(*mask.shape[::-1])
        image.GetPointData().SetScalars(numpy_to_vtk(mask.ravel().astype(np.uint8), deep=True))
        edges = vtk.vtkDiscreteFlyingEdges3D()
        edges.SetInputData(image)
        edges.SetValue(0, 1)
        smooth = vtk.vtkWindowedSincPolyDataFilter()
        smooth.SetInputConnection(edges.GetOutputPort())
        smooth.SetNumberOfIterations(20)
        smooth.SetPassBand(0.01)
        smooth.BoundarySmoothingOff()
        smooth.FeatureEdgeSmoothingOff()
        smooth.NonManifoldSmoothingOn()
        smooth.NormalizeCoordinatesOn()
        place = vtk.vtkTransform()
        place.SetMatrix([float(value) for value in matrix.ravel()])
        moved = vtk.vtkTransformPolyDataFilter()
        moved.SetInputConnection(smooth.GetOutputPort())
        moved.SetTransform(place)
        normals = vtk.vtkPolyDataNormals()
        normals.SetInputConnection(moved.GetOutputPort())
        normals.SplittingOff()
        normals.ConsistencyOn()
        normals.AutoOrientNormalsOn()  # outwards, also on a grid whose axes are left-handed
        normals.Update()
        mesh = normals.GetOutput()
        np.savez(
            folder / f"{number}-surface.npz",
            points=vtk_to_numpy(mesh.GetPoints().GetData()).astype(np.float32),
            triangles=vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).astype(np.int64),
            normals=vtk_to_numpy(mesh.GetPointData().GetNormals()).astype(np.float32),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
