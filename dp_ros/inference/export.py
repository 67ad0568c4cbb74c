"""Export of a policy's graphs and constants to a folder, for the OpenVINO engine or to serve otherwise.

A plan is: `encoder_V` for each frame and camera, the oldest frame first; their features, one after the other, through
`condition`; then the steps in `SPEC`, each a call of `denoiser` with a row of the constant `steps`. Its output is the
noise or, where the step's `prediction` is "sample", the clean chunk. The second output of `encoder_V` is not needed: it
is for the score of pictures unlike those of the training.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from dp_ros.inference.cache import CONSTANTS
from dp_ros.inference.graphs import Graph, graphs_of
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.normalizer import INPUT_BOUND
from dp_ros.policy.sampler import sampler_steps
from dp_ros.schema import ConfigError

SPEC = "graphs.json"
FORMATS = ("openvino", "onnx")


def export(policy: DiffusionPolicy, folder: Path, format: str) -> None:
    """Write NAME.xml and NAME.bin, or NAME.onnx, of every graph, `CONSTANTS` and `SPEC`, to an existing folder.

    ConfigError for an unknown format or a missing package; OSError where the folder cannot be written.
    """
    if format not in FORMATS:
        raise ConfigError(f"format '{format}' is unknown: choose one of {', '.join(FORMATS)}")
    write = _write_openvino if format == "openvino" else _write_onnx
    graphs, table = graphs_of(policy)
    with torch.inference_mode(), _quiet():
        for name, graph in graphs.items():
            write(graph, folder / name)
    action, state = policy.action_normalizer, policy.state_normalizer
    constants = {
        "steps": table,
        "action_centre": action.centre,
        "action_half_range": action.half_range,
        "state_centre": state.centre,
        "state_half_range": state.half_range,
        "state_bound": torch.tensor(INPUT_BOUND),
    }
    save_file({name: tensor.contiguous() for name, tensor in constants.items()}, folder / CONSTANTS)
    (folder / CONSTANTS).chmod(0o644)  # safetensors gives access to the owner only
    spec = {
        "policy": policy.config.model_dump(mode="json"),
        "graphs": {
            name: {
                "inputs": {key: list(tensor.shape) for key, tensor in graph.inputs.items()},
                "output": graph.output,
                **({"more_outputs": list(graph.more_outputs)} if graph.more_outputs else {}),
            }
            for name, graph in graphs.items()
        },
        "clip": policy.config.diffusion.clip,
        "sampler": [asdict(step) for step in sampler_steps(policy.config.diffusion)],
    }
    (folder / SPEC).write_text(json.dumps(spec, indent=2) + "\n")


def _write_openvino(graph: Graph, path: Path) -> None:
    openvino = import_openvino()
    shapes = {name: openvino.PartialShape(list(tensor.shape)) for name, tensor in graph.inputs.items()}
    model = openvino.convert_model(graph.module, example_input=dict(graph.inputs), input=shapes)
    for i, name in enumerate(graph.inputs):
        model.inputs[i].get_tensor().set_names({name})
    for output, name in zip(model.outputs, (graph.output, *graph.more_outputs), strict=True):
        output.get_tensor().set_names({name})
    openvino.save_model(model, path.with_suffix(".xml"), compress_to_fp16=False)


def _write_onnx(graph: Graph, path: Path) -> None:
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise ConfigError(
            "the package onnx is not installed: pip install onnx, or choose another format"
        ) from None
    torch.onnx.export(
        graph.module,
        tuple(graph.inputs.values()),
        path.with_suffix(".onnx"),
        input_names=list(graph.inputs),
        output_names=[graph.output, *graph.more_outputs],
        dynamo=False,  # the other exporter needs onnxscript, and writes the weights to a second file
    )


def import_openvino() -> Any:
    """The package openvino; ConfigError where it is missing."""
    try:
        import openvino
    except ImportError:
        raise ConfigError("the package openvino is not installed: pip install openvino") from None
    return openvino


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing warns of shapes that become constants, as they should, and converters print."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
