"""Runs in Triton's Python backend: hands any number of images to graphs that each take a fixed number.

``gtp-export triton`` copies this file as it is; it knows its graphs from ``config.pbtxt``: the parameter ``model_8``
names the model for 8 images.
"""

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # of Triton's


class TritonPythonModel:
    """The front model; its interface is Triton's."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the configuration."""
        config = json.loads(args["model_config"])
        given = {name: value["string_value"] for name, value in config["parameters"].items()}
        self._models = {int(name.removeprefix("model_")): model for name, model in given.items()}
        self._input = config["input"][0]["name"]
        self._outputs = [output["name"] for output in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests that Triton gathered, each (n, ...) images."""
        images = [pb_utils.get_input_tensor_by_name(request, self._input).as_numpy() for request in requests]
        try:
            answers = self._run(np.concatenate(images))
        except Exception as error:  # every request must be answered
            failed = pb_utils.TritonError(str(error))
            return [pb_utils.InferenceResponse(error=failed) for _ in requests]
        ends = np.cumsum([len(part) for part in images])[:-1]
        parts = {name: np.split(values, ends) for name, values in answers.items()}
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(name, parts[name][index]) for name in self._outputs])
            for index in range(len(requests))
        ]

    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        answers: list[dict[str, np.ndarray]] = []
        start = 0
        while start < len(images):
            batch = self._fitting(len(images) - start)
            part = images[start : start + batch]
            missing = batch - len(part)
            padded = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)]) if missing else part
            answers.append({name: values[: len(part)] for name, values in self._infer(batch, padded).items()})
            start += batch
        return {name: np.concatenate([answer[name] for answer in answers]) for name in self._outputs}

    def _fitting(self, count: int) -> int:
        """Return the largest number of images that is full, or the smallest that holds them where none is."""
        full = [batch for batch in self._models if batch <= count]
        return max(full) if full else min(self._models)

    def _infer(self, batch: int, images: np.ndarray) -> dict[str, np.ndarray]:
        request = pb_utils.InferenceRequest(
            model_name=self._models[batch],
            requested_output_names=self._outputs,
            inputs=[pb_utils.Tensor(self._input, images)],
        )
        response = request.exec()
        if response.has_error():
            raise RuntimeError(response.error().message())
        return {name: pb_utils.get_output_tensor_by_name(response, name).as_numpy() for name in self._outputs}
